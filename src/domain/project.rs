//! The case studies: their fields and rules, declared once.

use schemars::JsonSchema;

use super::rules::{LINK, SLUG, Status};

/// A client case study.
///
/// Only its declaration is used: documents stay JSON trees.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
pub struct Project {
    /// The slug that names the project in addresses; never changes.
    #[schemars(regex(pattern = SLUG), length(max = 100))]
    pub id: String,
    /// Title of the case study, 1 to 200 characters.
    #[schemars(length(min = 1, max = 200))]
    pub title: String,
    /// The headline outcome, such as `+40 % bookings in three months`.
    #[schemars(length(min = 1))]
    pub result: String,
    /// Up to 10 tags; replaces the whole list.
    #[schemars(length(max = 10), inner(length(min = 1)))]
    pub tags: Vec<String>,
    /// Cover image: absolute http(s) URL or site path such as `/images/cover.png`.
    #[schemars(regex(pattern = LINK))]
    pub image: String,
    /// Who it was made for.
    pub client: Client,
    /// The problem the client came with.
    #[schemars(length(min = 1))]
    pub challenge: String,
    /// What was built.
    pub solution: Solution,
    /// Summary for lists and search engines, 1 to 1000 characters.
    #[schemars(length(min = 1, max = 1000))]
    pub description: String,
    /// What the client says.
    pub testimonial: Testimonial,
    /// Measured results, one a line; replaces the whole list.
    pub results: Vec<String>,
    /// What a reader can learn from it.
    pub insight: Insight,
    /// Publication state.
    pub metadata: ProjectMetadata,
}

/// Who a project was made for.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
pub struct Client {
    /// Kind of client, such as `Craft business`.
    #[schemars(length(min = 1))]
    pub r#type: String,
    /// Size, such as `12 people`.
    #[schemars(length(min = 1))]
    pub size: String,
    /// What they wanted to reach.
    #[schemars(length(min = 1))]
    pub objective: String,
}

/// What was built.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
pub struct Solution {
    /// The solution in prose.
    #[schemars(length(min = 1))]
    pub description: String,
    /// Tools used; replaces the whole list.
    pub tools: Vec<String>,
    /// Features delivered; replaces the whole list.
    pub features: Vec<String>,
    /// Up to 10 screenshots, URLs or site paths; replaces the whole list.
    #[schemars(length(max = 10), inner(regex(pattern = LINK)))]
    pub screenshots: Vec<String>,
    /// Video: URL or site path.
    #[schemars(regex(pattern = LINK))]
    pub video_url: Option<String>,
    /// Live demonstration: URL or site path.
    #[schemars(regex(pattern = LINK))]
    pub demo_link: Option<String>,
}

/// What the client says.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
pub struct Testimonial {
    /// The quotation.
    #[schemars(length(min = 1))]
    pub text: String,
    /// Who said it.
    #[schemars(length(min = 1))]
    pub author: String,
    /// Picture of the author: URL or site path.
    #[schemars(regex(pattern = LINK))]
    pub avatar: String,
}

/// What a reader can learn from a project.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
pub struct Insight {
    /// Heading.
    #[schemars(length(min = 1))]
    pub title: String,
    /// The lesson.
    #[schemars(length(min = 1))]
    pub text: String,
    /// Link to a related resource.
    pub resource_link: Option<ResourceLink>,
}

/// A link from a project to a resource.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
pub struct ResourceLink {
    /// Text of the link.
    #[schemars(length(min = 1))]
    pub text: String,
    /// URL or site path.
    #[schemars(regex(pattern = LINK))]
    pub url: String,
}

/// Publication state of a project.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
pub struct ProjectMetadata {
    /// When it was created; set by the server.
    pub created_at: String,
    /// When it was last changed; set by the server.
    pub updated_at: String,
    /// Shown on the home page.
    pub featured: bool,
    /// `published` is visible on the website, `draft` and `archived` are not.
    pub status: Status,
}
