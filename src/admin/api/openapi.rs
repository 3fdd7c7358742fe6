//! `/openapi.json`: what the API can be asked, as an OpenAPI 3.1 document.
//!
//! Owns: the document, which is made from the table of routes, so that it has all of them and nothing else. What objects
//! look like inside is RabbitMQ's and stands in its reference; here they are objects.

use axum::http::Method;
use serde_json::{Map, Value, json};

use super::call::Call;
use super::{Answer, Level, Reply, Route, route, routes};

pub(super) const ROUTES: &[Route] = &[route(
    Method::GET,
    "/openapi.json",
    Level::Management,
    document,
)];

/// Parts of a query that every list understands.
const PAGING: [(&str, &str, &str); 7] = [
    ("page", "integer", "Which page, from 1"),
    ("page_size", "integer", "Objects of a page, at most 500"),
    ("name", "string", "Only objects whose name contains this"),
    ("use_regex", "boolean", "The name is a regular expression"),
    (
        "columns",
        "string",
        "Only these fields, with commas between them",
    ),
    ("sort", "string", "By this field"),
    ("sort_reverse", "boolean", "The other way round"),
];

// req: MGMT-8
fn document(call: &Call) -> Answer {
    let mut paths = Map::new();
    for route in routes() {
        let path = format!("/api{}", route.path);
        let operations = paths.entry(path).or_insert_with(|| json!({}));
        if let Value::Object(operations) = operations {
            let method = route.method.as_str().to_ascii_lowercase();
            operations.insert(method, operation(route));
        }
    }
    Ok(Reply::Json(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Warren management",
            "version": call.api.facts.version,
            "description": "RabbitMQ's management HTTP API, and what Warren has beside it. In paths, a vhost named / is %2F.",
        },
        "components": {
            "securitySchemes": {
                "basic": { "type": "http", "scheme": "basic" },
                "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
            },
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error", "reason"],
                    "properties": {
                        "error": { "type": "string" },
                        "reason": {
                            "type": ["string", "array"],
                            "description": "A text; or a list, where RabbitMQ shows one of its terms",
                        },
                    },
                },
            },
        },
        "security": [{ "basic": [] }, { "bearer": [] }],
        "paths": paths,
    })))
}

fn operation(route: &Route) -> Value {
    let names = route.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        Some(json!({
            "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 },
        }))
    });
    let mut parameters: Vec<_> = names.collect();
    if route.method == Method::GET && !route.path.ends_with('}') {
        parameters.extend(PAGING.map(|(name, kind, description)| {
            json!({ "name": name, "in": "query", "schema": { "type": kind }, "description": description })
        }));
    }
    let group = route.path.split('/').nth(1).unwrap_or_default();
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": summary(route),
        "tags": [group],
        "parameters": parameters,
        "responses": responses(route),
    });
    if route.level == Level::Anyone {
        operation["security"] = json!([]);
    }
    if [Method::PUT, Method::POST].contains(&route.method) {
        operation["requestBody"] = json!({
            "content": { "application/json": { "schema": { "type": "object" } } },
        });
    }
    operation
}

/// `get_queues_vhost_name`, unique because method and path are.
fn operation_id(route: &Route) -> String {
    let method = route.method.as_str().to_ascii_lowercase();
    let path: String = route
        .path
        .chars()
        .filter(|letter| !"{}".contains(*letter))
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '_'
            }
        })
        .collect();
    format!("{method}{path}")
}

fn summary(route: &Route) -> String {
    let verb = match route.method {
        Method::GET => "Look at",
        Method::PUT => "Make or change",
        Method::DELETE => "Delete",
        _ => "Do",
    };
    let who = match route.level {
        Level::Anyone => "anybody",
        Level::Management => "users with a management tag",
        Level::Policymaker => "users with the tag policymaker",
        Level::Monitoring => "users with the tag monitoring",
        Level::Administrator => "users with the tag administrator",
    };
    format!("{verb} {}; for {who}", route.path.trim_start_matches('/'))
}

fn responses(route: &Route) -> Value {
    let error = |description: &str| {
        json!({
            "description": description,
            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
        })
    };
    let content = json!({ "application/json": { "schema": {} } });
    let mut responses = Map::new();
    let mut put = |code: &str, value: Value| drop(responses.insert(code.to_owned(), value));
    put(
        "200",
        json!({ "description": "The answer", "content": content }),
    );
    if route.method != Method::GET {
        put("201", json!({ "description": "Made" }));
        put("204", json!({ "description": "Done" }));
        put("403", error("A page of another site asks for it"));
        put("412", error("It stands in the way of something"));
        put("500", error("The disk does not take it"));
        put(
            "503",
            error("Memory or disk is short, or the disk does not answer"),
        );
    }
    put("400", error("What was asked for cannot be done so"));
    put(
        "401",
        json!({ "description": "No login, or not enough rights" }),
    );
    put("404", error("It is not there"));
    if [Method::PUT, Method::POST].contains(&route.method) {
        put("408", error("The body did not come in time"));
        put("413", error("The body is too long"));
    }
    if route.path.starts_with("/health") || route.path.starts_with("/aliveness") {
        put(
            "503",
            json!({ "description": "Not healthy", "content": content }),
        );
    }
    Value::Object(responses)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every route is there with its method, each operation has a name of its own, and every name in a path is told.
    // req: MGMT-8
    #[test]
    fn every_route_stands_in_the_document() {
        let mut ids = std::collections::HashSet::new();
        for route in routes() {
            let operation = operation(route);
            let id = operation["operationId"]
                .as_str()
                .expect("a name")
                .to_owned();
            assert!(ids.insert(id.clone()), "{id} is there twice");
            let told = operation["parameters"].as_array().expect("a list");
            let in_path = told.iter().filter(|parameter| parameter["in"] == "path");
            assert_eq!(in_path.count(), route.path.matches('{').count(), "{id}");
            assert!(
                operation["responses"]
                    .as_object()
                    .is_some_and(|all| all.len() >= 4)
            );
        }
        assert!(ids.contains("get_queues_vhost_name"));
    }
}
