//! The case studies: their fields and rules, declared once.

use schemars::JsonSchema;

use super::rules::{LINK, SLUG, Status};

/// A client case study.
///
/// Only its declaration is used: documents stay JSON trees. Fields whose names say all have an empty
/// description, so that models have less to read.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
pub struct Project {
    /// Slug that names the project in addresses.
    #[schemars(regex(pattern = SLUG), length(max = 100))]
    pub id: String,
    /// Title of the case study.
    #[schemars(length(min = 1, max = 200))]
    pub title: String,
    /// Headline outcome, such as `+40 % bookings`.
    #[schemars(length(min = 1))]
    pub result: String,
    /// Topics.
    #[schemars(length(max = 10), inner(length(min = 1)))]
    pub tags: Vec<String>,
    /// Cover image: link.
    #[schemars(regex(pattern = LINK))]
    pub image: String,
    /// Who it was made for.
    pub client: Client,
    /// The problem they came with.
    #[schemars(length(min = 1))]
    pub challenge: String,
    /// What was built.
    pub solution: Solution,
    /// Summary for lists and search engines.
    #[schemars(length(min = 1, max = 1000))]
    pub description: String,
    /// What the client says.
    pub testimonial: Testimonial,
    /// Measured results.
    pub results: Vec<String>,
    /// What readers can learn.
    pub insight: Insight,
    /// Publication state.
    pub metadata: ProjectMetadata,
}

/// Who a project was made for.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
pub struct Client {
    /// Such as `Craft business`.
    #[schemars(length(min = 1))]
    pub r#type: String,
    /// Such as `12 people`.
    #[schemars(length(min = 1))]
    pub size: String,
    /// What they wanted to reach.
    #[schemars(length(min = 1))]
    #[schemars(description = "")]
    pub objective: String,
}

/// What was built.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
pub struct Solution {
    /// In prose.
    #[schemars(length(min = 1))]
    #[schemars(description = "")]
    pub description: String,
    /// Tools used.
    #[schemars(description = "")]
    pub tools: Vec<String>,
    /// Features delivered.
    #[schemars(description = "")]
    pub features: Vec<String>,
    /// Links.
    #[schemars(length(max = 10), inner(regex(pattern = LINK)))]
    pub screenshots: Vec<String>,
    /// Link.
    #[schemars(regex(pattern = LINK))]
    pub video_url: Option<String>,
    /// Link.
    #[schemars(regex(pattern = LINK))]
    pub demo_link: Option<String>,
}

/// What the client says.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
pub struct Testimonial {
    /// The quotation.
    #[schemars(length(min = 1))]
    #[schemars(description = "")]
    pub text: String,
    /// Who said it.
    #[schemars(length(min = 1))]
    #[schemars(description = "")]
    pub author: String,
    /// Their picture: link.
    #[schemars(regex(pattern = LINK))]
    pub avatar: String,
}

/// What a reader can learn from a project.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
pub struct Insight {
    /// Heading.
    #[schemars(length(min = 1))]
    #[schemars(description = "")]
    pub title: String,
    /// The lesson.
    #[schemars(length(min = 1))]
    #[schemars(description = "")]
    pub text: String,
    /// Link to a resource.
    pub resource_link: Option<ResourceLink>,
}

/// A link from a project to a resource.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
pub struct ResourceLink {
    /// What it says.
    #[schemars(length(min = 1))]
    #[schemars(description = "")]
    pub text: String,
    /// Link.
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
    /// Only `published` is visible on the website.
    pub status: Status,
}
