//! Accounts and rights, without a broker around them.

use super::*;
use crate::broker::ResourceKind;

fn users() -> Users {
    let users = Users::new(
        vec![Name::from("guest")],
        &[0; 32],
        DefinitionStore::in_memory(),
    );
    let hash = PasswordHash::new(b"guest", [1, 2, 3, 4]);
    users
        .put_user(&Name::from("guest"), Some(hash), Vec::new())
        .expect("in memory");
    users
}

#[test]
fn guest_logs_in_from_this_machine_only() {
    let users = users();
    assert!(
        users
            .authenticate(b"guest", b"guest", Origin::Loopback)
            .is_ok()
    );
    let refused = |name: &[u8], password: &[u8], origin| {
        users
            .authenticate(name, password, origin)
            .map(|user| user.name().clone())
    };
    assert_eq!(
        refused(b"guest", b"guest", Origin::Remote),
        Err(AuthError::LoopbackOnly)
    );
    assert_eq!(
        refused(b"guest", b"wrong", Origin::Loopback),
        Err(AuthError::BadCredentials)
    );
    assert_eq!(
        refused(b"guest", b"", Origin::Loopback),
        Err(AuthError::BadCredentials)
    );
    assert_eq!(
        refused(b"nobody", b"guest", Origin::Loopback),
        Err(AuthError::BadCredentials)
    );
}

#[test]
fn rights_are_those_of_the_patterns() {
    let users = users();
    let (guest, vhost) = (Name::from("guest"), Name::from("/"));
    let may = |kind, name: &[u8], access| {
        let user = users.user(b"guest").expect("an account");
        users.authorize(&user, &vhost, kind, name, access)
    };
    assert!(!may(ResourceKind::Queue, b"q", Access::Read));
    let permissions = Permissions::new("^own$", "", "^in-.*").expect("plain patterns");
    users
        .put_permissions(&guest, &vhost, permissions)
        .expect("in memory");
    assert!(may(ResourceKind::Queue, b"own", Access::Configure));
    assert!(!may(ResourceKind::Queue, b"owner", Access::Configure));
    assert!(may(ResourceKind::Exchange, b"in-1", Access::Read));
    assert!(!may(ResourceKind::Exchange, b"", Access::Write));
    users
        .put_permissions(&guest, &vhost, Permissions::all())
        .expect("in memory");
    assert!(may(ResourceKind::Exchange, b"", Access::Write));
}

/// What a channel remembers of its rights to publish is void when an authorizer says so.
#[test]
fn rights_are_asked_for_again() {
    let users = users();
    let before = users.generation();
    users.rights_changed();
    assert_ne!(users.generation(), before);
}

#[test]
fn a_deleted_user_leaves_no_rights() {
    let users = users();
    let (guest, vhost) = (Name::from("guest"), Name::from("/"));
    users
        .put_permissions(&guest, &vhost, Permissions::all())
        .expect("in memory");
    let before = users.generation();
    assert!(users.delete_user(b"guest").expect("in memory"));
    assert!(users.all_permissions().is_empty());
    assert_ne!(users.generation(), before);
    assert!(!users.delete_user(b"guest").expect("in memory"));
}
