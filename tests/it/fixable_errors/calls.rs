//! Calls that are broken in the ways in which models break them.

use serde_json::{Value, json};

use crate::support::stdio::StdioClient;

/// The calls, after what some of them need.
pub(super) async fn rejected(client: &StdioClient) -> Vec<(&'static str, Value)> {
    let twice = json!({ "id": "fromagerie-du-val", "data": { "results": ["600 paniers", "4 livreurs", "600 paniers"] } });
    let written = client.call("update_project", twice).await;
    let audit_id = written["meta"]["auditId"].clone();
    let mut calls = reading();
    calls.extend(fields());
    calls.extend(values());
    calls.extend(edits());
    calls.extend(arguments(&audit_id));
    calls.extend(further(&audit_id));
    calls
}

fn reading() -> Vec<(&'static str, Value)> {
    vec![
        ("get_project", json!({ "id": "boulangerie-lerroy" })),
        ("get_project", json!({ "slug": "boulangerie-leroy" })),
        ("get_resource", json!({ "resourceId": "kit-seo-local" })),
        ("get_resource", json!({ "id": "kit_seo_local" })),
        ("list_projects", json!({ "limit": 500 })),
        ("get_project", json!({ "id": "kit-seo-local" })),
        ("list_resources", json!({ "state": "draft" })),
        ("list_projects", json!({ "search": "pain" })),
        ("list_projects", json!({ "featured": "yes" })),
        ("list_resources", json!({ "cursor": "abc" })),
        ("list_projects", json!({ "query": "pain ".repeat(60) })),
        ("list_projects", json!({ "detail": "everything" })),
        ("get_audit_log", json!({ "limit": 0 })),
        ("get_audit_log", json!({ "since": "yesterday" })),
        ("get_audit_log", json!({ "entityType": "projects" })),
        ("get_audit_log", json!({ "client": "n8n" })),
        ("get_audit_stats", json!({ "limit": 10 })),
        ("get_projects", json!({ "id": "boulangerie-leroy" })),
        ("list_project", json!({})),
    ]
}

/// Fields with another name, or elsewhere.
fn fields() -> Vec<(&'static str, Value)> {
    let project = |data| json!({ "id": "garage-petit-prevost", "data": data });
    vec![
        (
            "update_project",
            json!({ "id": "garage-petit-prevost", "title": "Le garage" }),
        ),
        (
            "update_project",
            json!({ "id": "garage-petit-prevost", "status": "draft" }),
        ),
        ("update_project", project(json!({ "status": "archived" }))),
        ("update_project", project(json!({ "client.size": "7" }))),
        ("update_project", project(json!({ "titel": "Garage" }))),
        (
            "update_project",
            project(json!({ "client": { "siez": "8" } })),
        ),
        (
            "update_project",
            project(json!({ "solution_description": "Un calculateur de prix." })),
        ),
        (
            "update_project",
            project(json!({ "id": "garage", "title": "Garage 2" })),
        ),
        (
            "update_project",
            project(
                json!({ "metadata": { "updatedAt": "2026-01-01T00:00:00Z", "featured": true } }),
            ),
        ),
        (
            "update_project",
            project(json!({ "title": "Garage 3", "dryRun": true })),
        ),
        (
            "update_project",
            project(json!({ "title": "Garage 4", "reason": "Plus court" })),
        ),
    ]
}

/// Values that break a rule.
fn values() -> Vec<(&'static str, Value)> {
    let project = |data| json!({ "id": "courtier-durand", "data": data });
    let resource = |data| json!({ "id": "pack-icones-commerce", "data": data });
    let tags: Vec<String> = (0..12).map(|number| format!("tag {number}")).collect();
    vec![
        (
            "update_project",
            project(json!({ "metadata": { "status": "live" } })),
        ),
        ("update_project", project(json!({ "tags": "assurance" }))),
        ("update_project", project(json!({ "tags": tags }))),
        (
            "update_project",
            project(json!({ "title": "Durand ".repeat(40) })),
        ),
        ("update_project", project(json!({ "image": "cover.webp" }))),
        (
            "update_project",
            project(json!({ "metadata": { "featured": "true" } })),
        ),
        (
            "update_resource",
            resource(json!({ "downloadLink": "files.example.com/icones.zip" })),
        ),
        (
            "update_resource",
            resource(json!({ "metadata": { "downloadCount": "319" } })),
        ),
        ("update_resource", resource(json!({ "price": 21 }))),
        (
            "update_resource",
            resource(json!({ "price": "22 €", "gallery": null })),
        ),
    ]
}

/// Arguments beside the data.
fn arguments(audit_id: &Value) -> Vec<(&'static str, Value)> {
    let with = |name: &str, value: Value| {
        let mut call =
            json!({ "id": "pricing-calculator", "data": { "title": format!("With {name}") } });
        call.as_object_mut().unwrap().insert(name.to_owned(), value);
        ("update_resource", call)
    };
    vec![
        with("expectedVersion", json!("0123456789abcdef")),
        with("dry_run", json!(true)),
        with("_dryRun", json!(true)),
        with("reason", json!("because ".repeat(80))),
        with("idempotencyKey", json!("my own key")),
        (
            "update_resource",
            json!({ "id": "pricing-calculater", "data": { "price": "Free of charge" } }),
        ),
        (
            "update_project",
            json!({ "id": "fromagerie-du-val", "undo": audit_id, "data": { "title": "x" } }),
        ),
    ]
}

fn edits() -> Vec<(&'static str, Value)> {
    let edit = |id: &str, edit| ("update_project", json!({ "id": id, "edits": [edit] }));
    vec![
        edit(
            "ecole-de-musique-arpege",
            json!({ "path": "challenge", "op": "find", "value": "Un bon accueil", "with": "Un bel accueil" }),
        ),
        edit(
            "cabinet-dentaire-lumiere",
            json!({ "path": "testimonial.text", "op": "find", "value": "Je rec", "with": "Nous rec" }),
        ),
        edit(
            "boulangerie-leroy",
            json!({ "path": "tags", "op": "remove", "value": "commandes en ligne" }),
        ),
        edit(
            "fromagerie-du-val",
            json!({ "path": "results", "op": "remove", "value": "600 paniers" }),
        ),
        edit(
            "boulangerie-martin",
            json!({ "path": "description", "op": "find", "value": "un cahier", "with": "un carnet" }),
        ),
        edit(
            "crossfit-harbour",
            json!({ "path": "tags", "op": "add", "value": "gym" }),
        ),
        edit(
            "crossfit-harbour",
            json!({ "path": "tags", "op": "append", "value": "coach", "at": 0 }),
        ),
        edit(
            "crossfit-harbour",
            json!({ "path": "tools", "op": "append", "value": "Resend" }),
        ),
        edit(
            "crossfit-harbour",
            json!({ "path": "solution.features[0]", "op": "remove", "value": "Waiting list" }),
        ),
        edit(
            "crossfit-harbour",
            json!({ "path": "results", "op": "insert", "value": "One chat fewer", "at": 99 }),
        ),
        edit(
            "crossfit-harbour",
            json!({ "field": "tags", "op": "append", "value": "booking app" }),
        ),
    ]
}

/// The toolsets that are off by default.
fn further(audit_id: &Value) -> Vec<(&'static str, Value)> {
    vec![
        ("undo_changes", json!({ "ids": [audit_id], "dryRun": true })),
        (
            "undo_changes",
            json!({ "auditIds": [audit_id], "since": "2026-01-01T00:00:00Z", "dryRun": true }),
        ),
    ]
}
