//! `/users` and `/whoami`.

use axum::http::Method;
use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::broker::{HashAlgorithm, Limits, Name, PasswordHash, Put, TAGS_MAX, User};

use super::call::{Call, to_name};
use super::error::ApiError;
use super::{Answer, Level, Reply, Route, paging, route};

pub(super) const ROUTES: &[Route] = &[
    route(Method::GET, "/whoami", Level::Management, whoami),
    route(Method::GET, "/users", Level::Administrator, list),
    route(
        Method::GET,
        "/users/without-permissions",
        Level::Administrator,
        without_permissions,
    ),
    route(
        Method::POST,
        "/users/bulk-delete",
        Level::Administrator,
        bulk_delete,
    ),
    route(Method::GET, "/users/{user}", Level::Administrator, get),
    route(Method::PUT, "/users/{user}", Level::Administrator, put),
    route(
        Method::DELETE,
        "/users/{user}",
        Level::Administrator,
        delete,
    ),
    route(
        Method::GET,
        "/auth/hash_password/{password}",
        Level::Administrator,
        hash_password,
    ),
];

/// Longest password, in bytes.
const PASSWORD_BYTES_MAX: usize = 1_024;

fn whoami(call: &Call) -> Answer {
    let user = call.user()?;
    Ok(Reply::Json(
        json!({ "name": user.name().to_string(), "tags": user.tags() }),
    ))
}

pub(super) fn describe_limits(limits: &Limits) -> Value {
    let all = [
        ("max-connections", limits.connection_count_max),
        ("max-channels", limits.channel_count_max),
        ("max-queues", limits.queue_count_max),
    ];
    let set = all
        .into_iter()
        .filter_map(|(name, limit)| Some((name.to_owned(), limit?.into())));
    Value::Object(set.collect())
}

pub(super) fn describe(user: &User) -> Value {
    let hash = user.password();
    let engine = base64::engine::general_purpose::STANDARD;
    let algorithm = hash.map_or(HashAlgorithm::Sha256, PasswordHash::algorithm);
    json!({
        "name": user.name().to_string(),
        "password_hash": hash.map_or_else(String::new, |hash| engine.encode(hash.as_bytes())),
        "hashing_algorithm": algorithm.module_name(),
        "tags": user.tags(),
        "limits": describe_limits(user.limits()),
    })
}

fn list(call: &Call) -> Answer {
    let users = call.broker().users().users();
    paging::list(call, users.iter().map(|user| describe(user)).collect())
}

fn without_permissions(call: &Call) -> Answer {
    let users = call.broker().users();
    let permissions = users.all_permissions();
    let has_none = |user: &Name| !permissions.iter().any(|(of, _, _)| of == user);
    let users = users.users();
    let without = users.iter().filter(|user| has_none(user.name()));
    paging::list(call, without.map(|user| describe(user)).collect())
}

fn get(call: &Call) -> Answer {
    let user = call.broker().users().user(call.name("user").as_bytes());
    paging::one(call, describe(&*user.ok_or_else(ApiError::not_found)?))
}

/// Tags as a list, or as one text with commas.
pub(super) fn tags(value: Option<&Value>) -> Result<Vec<String>, ApiError> {
    let wrong = || ApiError::bad_request("tags are not a list of strings");
    let tags: Vec<String> = match value {
        None => return Err(ApiError::bad_request("tags_not_present")),
        Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => text
            .split(',')
            .map(|tag| tag.trim().to_owned())
            .filter(|tag| !tag.is_empty())
            .collect(),
        Some(Value::Array(tags)) => tags
            .iter()
            .map(|tag| tag.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(wrong()),
    };
    if tags.len() > TAGS_MAX || tags.iter().any(|tag| tag.len() > 255) {
        return Err(ApiError::bad_request(format!(
            "more than {TAGS_MAX} tags, or too long"
        )));
    }
    Ok(tags)
}

/// Whether an object gives a password, takes it away, or says nothing of it.
enum Password {
    Given(PasswordHash),
    None,
    Unsaid,
}

fn password(call: &Call, object: &Map<String, Value>) -> Result<Password, ApiError> {
    if let Some(value) = object.get("password").filter(|value| !value.is_null()) {
        let password = value.as_str();
        let password = password.ok_or_else(|| ApiError::bad_request("password is not a string"))?;
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(ApiError::bad_request("a password may have 1024 bytes"));
        }
        // An empty one lets nobody in, as in RabbitMQ.
        return Ok(match password {
            "" => Password::None,
            password => Password::Given(call.broker().hash_password(password.as_bytes())),
        });
    }
    let Some(value) = object.get("password_hash").filter(|value| !value.is_null()) else {
        return Ok(Password::Unsaid);
    };
    let encoded = value.as_str();
    let encoded = encoded.ok_or_else(|| ApiError::bad_request("password_hash is not a string"))?;
    if encoded.is_empty() {
        return Ok(Password::None);
    }
    let engine = base64::engine::general_purpose::STANDARD;
    let bytes = engine
        .decode(encoded)
        .map_err(|_| ApiError::bad_term("not_base64", encoded))?;
    let algorithm = match object.get("hashing_algorithm").and_then(Value::as_str) {
        // RabbitMQ takes it for one of its own; ours is told by its length.
        None => match PasswordHash::from_bytes(&bytes).algorithm() {
            HashAlgorithm::Argon2id => Some(HashAlgorithm::Argon2id),
            HashAlgorithm::Sha256 | HashAlgorithm::Sha512 => Some(HashAlgorithm::Sha256),
        },
        Some("rabbit_password_hashing_md5") => None,
        Some(name) => Some(HashAlgorithm::from_module_name(name).ok_or_else(|| {
            ApiError::bad_request(format!("hashing algorithm {name} is not supported"))
        })?),
    };
    let hash = algorithm.and_then(|algorithm| PasswordHash::imported(&bytes, algorithm));
    // As RabbitMQ does: a user whose hash is of no use still comes along with its rights.
    Ok(Password::Given(hash.unwrap_or_else(|| {
        tracing::warn!("a user's password hash matches no password: set a new one");
        PasswordHash::from_bytes(&bytes)
    })))
}

/// Creates or changes a user from an object as requests and definitions files write it.
pub(super) fn put_user(
    call: &Call,
    name: &Name,
    object: &Map<String, Value>,
) -> Result<Put, ApiError> {
    let tags = tags(object.get("tags"))?;
    let users = call.broker().users();
    let before = users.user(name.as_bytes());
    let password = match password(call, object)? {
        Password::Given(hash) => Some(hash),
        Password::None | Password::Unsaid => None,
    };
    users.put_user(name, password, tags)?;
    Ok(match before {
        Some(_) => Put::Replaced,
        None => Put::Created,
    })
}

fn put(call: &Call) -> Answer {
    let object = call.object()?;
    let name = call.broker_name("user")?;
    if name.is_empty() {
        return Err(ApiError::bad_request("a user needs a name"));
    }
    put_user(call, &name, &object).map(Reply::put)
}

/// Deletes a user and ends its connections.
fn delete_user(call: &Call, name: &Name) -> Result<bool, ApiError> {
    let deleted = call.broker().users().delete_user(name.as_bytes())?;
    if deleted {
        tracing::info!(user = %name, "a user is deleted");
        super::connections::close_of_user(&call.api.registry, name);
    }
    Ok(deleted)
}

fn delete(call: &Call) -> Answer {
    let name = call.broker_name("user")?;
    match delete_user(call, &name)? {
        true => Ok(Reply::NoContent),
        false => Err(ApiError::not_found()),
    }
}

fn bulk_delete(call: &Call) -> Answer {
    let object = call.object_with(&["users"])?;
    let Some(Value::Array(users)) = object.get("users") else {
        return Err(ApiError::bad_request("users is not a list"));
    };
    for user in users {
        let name = user
            .as_str()
            .ok_or_else(|| ApiError::bad_request("a user is not a string"))?;
        if !delete_user(call, &to_name(name)?)? {
            return Err(ApiError::bad_term("no_such_user", name));
        }
    }
    Ok(Reply::NoContent)
}

fn hash_password(call: &Call) -> Answer {
    let hash = PasswordHash::new(call.name("password").as_bytes(), call.broker().salt());
    let engine = base64::engine::general_purpose::STANDARD;
    Ok(Reply::Json(json!({ "ok": engine.encode(hash.as_bytes()) })))
}
