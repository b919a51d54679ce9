//! The page for people who come from Redis is made from the table; this keeps the file in the repository current.

use std::path::Path;

#[test]
fn coming_from_redis_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/coming-from-redis.md");
    let wanted = kvorum_model::coming_from_redis();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "docs/coming-from-redis.md is stale: UPDATE_DOCS=1 cargo test -p kvorum-model");
}
