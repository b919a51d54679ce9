//! `kvorum cluster verify`: whether the replicas of all shards have the same.

use crate::ask::{Ask, Asked, table};
use crate::settings::Settings;
use serde_json::Value;

/// Prints what differs and what is not known; an error if something differs.
pub(crate) fn verify(settings: &Settings) -> Result<(), String> {
    let verified = Asked::of(settings, "this")?.json("/v1/cluster/verify", &Ask::Get)?;
    let (text, differing) = text_of(&verified);
    print!("{text}");
    match differing {
        0 => Ok(()),
        1 => Err("the replicas of 1 shard differ".to_owned()),
        count => Err(format!("the replicas of {count} shards differ")),
    }
}

fn text_of(verified: &Value) -> (String, u64) {
    let shards = verified["shards"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<_> =
        shards.iter().filter(|shard| shard["equal"].as_bool() != Some(true)).map(row).collect();
    let number = |name: &str| verified[name].as_u64().unwrap_or(0);
    let mut text = String::new();
    if !rows.is_empty() {
        text.push_str(&table(&["SHARD", "NODES", "EQUAL", "DETAIL"], &rows));
        text.push('\n');
    }
    let equal = shards.len() - rows.len();
    text.push_str(&format!(
        "{} shards compared: {equal} equal, {} differ, {} unknown\n",
        shards.len(),
        number("differing"),
        number("unknown")
    ));
    (text, number("differing"))
}

fn row(shard: &Value) -> Vec<String> {
    let word = |name: &str| shard[name].as_str().unwrap_or_default().to_owned();
    let nodes = shard["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let nodes: Vec<_> = nodes.iter().filter_map(Value::as_str).collect();
    let equal = match shard["equal"].as_bool() {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "unknown",
    };
    vec![
        format!("{}/{}", word("namespace"), shard["place"]),
        nodes.join(" "),
        equal.to_owned(),
        word("detail"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_equal_is_only_counted() {
        let shard = |place: u64, equal: Value, detail: &str| json!({"namespace": "0", "place": place, "nodes": ["a", "b"], "equal": equal, "detail": detail});
        let verified = json!({"differing": 1, "unknown": 1, "shards": [
            shard(0, json!(true), ""),
            shard(1, json!(false), "at 7: a 1, b 2"),
            shard(2, json!(null), "no answer of b"),
        ]});
        let expected = "SHARD  NODES  EQUAL    DETAIL\n\
                        0/1    a b    NO       at 7: a 1, b 2\n\
                        0/2    a b    unknown  no answer of b\n\
                        \n3 shards compared: 1 equal, 1 differ, 1 unknown\n";
        assert_eq!(text_of(&verified), (expected.to_owned(), 1));
    }
}
