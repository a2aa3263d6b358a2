//! The downloadable goods: their fields and rules, declared once.

use schemars::JsonSchema;

use super::rules::{LINK, SLUG, Status, URL};

/// A downloadable good.
///
/// Only its declaration is used: documents stay JSON trees.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
pub struct Resource {
    /// Slug that names the resource in addresses.
    #[schemars(regex(pattern = SLUG), length(max = 100))]
    pub id: String,
    /// Title of the resource.
    #[schemars(length(min = 1, max = 200))]
    pub title: String,
    /// One or two sentences for lists.
    #[schemars(length(min = 1))]
    pub description: String,
    /// Full description.
    #[schemars(length(min = 1, max = 1000))]
    pub long_description: String,
    /// Topics.
    #[schemars(length(max = 10), inner(length(min = 1)))]
    pub tags: Vec<String>,
    /// Cover image: link.
    #[schemars(regex(pattern = LINK))]
    pub image: String,
    /// Price as shown to a visitor, such as `Gratuit` or `29€`.
    #[schemars(length(min = 1))]
    pub price: String,
    /// Where the file is: http(s) URL.
    #[schemars(regex(pattern = URL))]
    pub download_link: String,
    /// Pictures: links.
    #[schemars(length(max = 20), inner(regex(pattern = LINK)))]
    pub gallery: Vec<String>,
    /// Publication state.
    pub metadata: ResourceMetadata,
}

/// Publication state of a resource.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
pub struct ResourceMetadata {
    /// When it was created; set by the server.
    pub created_at: String,
    /// When it was last changed; set by the server.
    pub updated_at: String,
    /// Shown on the home page.
    pub featured: bool,
    /// Only `published` is visible on the website.
    pub status: Status,
    /// How often it was downloaded.
    pub download_count: Option<u64>,
}
