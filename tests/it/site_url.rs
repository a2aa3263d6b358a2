//! `--site-url`: where visitors find a published document.

use serde_json::{Value, json};

use crate::support::{
    fixtures::{self, create, new_document, project_key},
    process::run_with_input,
    program::{Home, PROGRAM},
    stdio::StdioClient,
    stores::{Store, on_each_store},
};
use portfolio_mcp::domain::{DocumentKey, Kind};

const TEMPLATE: &str = "--site-url=https://example.com/{kind}/{id}";

/// Runs `portfolio-mcp stdio` without input; gives its exit code and standard error.
fn start(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let home = Home::new();
    let mut command = home.command(PROGRAM);
    command
        .args(["stdio", "--store", "sqlite:x.db"])
        .args(arguments)
        .envs(variables.iter().copied());
    let output = run_with_input(&mut command, "");
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[tokio::test]
async fn answers_about_a_published_document_have_its_address() {
    on_each_store(async |store: &Store| {
        let published = json!({ "metadata": { "status": "published" } });
        let document = fixtures::with(&fixtures::project("a"), published.clone());
        create(&*store.repository, &project_key("a"), document).await;
        let draft = fixtures::project("b");
        create(&*store.repository, &project_key("b"), draft).await;
        let odd = DocumentKey::new(Kind::Resource, "Été 1/2");
        create(&*store.repository, &odd, fixtures::resource(&odd.id)).await;
        let mut arguments = store.arguments();
        arguments.extend([TEMPLATE, "--toolsets=all"].map(ToOwned::to_owned));
        let client = StdioClient::start_with(&arguments).await;
        let url = async |tool: &str, arguments: Value| {
            let answer = client.call(tool, arguments).await;
            answer["meta"]["url"].as_str().map(ToOwned::to_owned)
        };
        let a = Some("https://example.com/projects/a".to_owned());
        let b = Some("https://example.com/projects/b".to_owned());
        let c = Some("https://example.com/projects/c".to_owned());
        let mut data = new_document(Kind::Project);
        data["metadata"] = published["metadata"].clone();

        assert_eq!(url("get_project", json!({ "id": "a" })).await, a);
        assert_eq!(url("get_project", json!({ "id": "b" })).await, None);
        assert_eq!(
            url("get_resource", json!({ "id": odd.id })).await.unwrap(),
            "https://example.com/resources/%C3%89t%C3%A9%201%2F2"
        );
        assert_eq!(
            url("update_project", json!({ "id": "b", "data": published })).await,
            b
        );
        assert_eq!(
            url("create_project", json!({ "id": "c", "data": data })).await,
            c
        );
        let draft = json!({ "id": "d", "data": new_document(Kind::Project) });
        assert_eq!(url("create_project", draft).await, None);
        store.assert_sound().await;
    })
    .await;
}

#[test]
fn what_is_no_address_of_a_document_is_refused_at_the_start() {
    for template in [
        "example.com/{kind}/{id}",
        "/{kind}/{id}",
        "//example.com/{id}",
        "ftp://example.com/{id}",
        "file:///srv/{id}",
        "javascript:{id}",
        "https://example.com/",
        "https://example.com/{kind}",
        "https://example.com/{slug}",
        "https://example.com/{kind}/{id}/{lang}",
        "https://example.com/{id",
        "https://{id}.example.com/",
        "https://marie:s3cret@example.com/{id}",
        "https://example.com/a b/{id}",
        "https:///{id}",
        "https://exa mple.com/{id}",
    ] {
        let by_flag = start(&[&format!("--site-url={template}")], &[]);
        let by_variable = start(&[], &[("PORTFOLIO_SITE_URL", template)]);

        for (code, stderr) in [by_flag, by_variable] {
            assert_eq!(code, 2, "{template}: {stderr}");
            assert!(
                stderr.contains("--site-url (PORTFOLIO_SITE_URL): "),
                "{stderr}"
            );
            assert!(
                stderr.contains("https://example.com/{kind}/{id}"),
                "{stderr}"
            );
            assert!(!stderr.contains("s3cret"), "{stderr}");
        }
    }
    for empty in ["", " "] {
        let (code, stderr) = start(&[&format!("--site-url={empty}")], &[]);
        assert_eq!(code, 0, "{stderr}");
    }
}
