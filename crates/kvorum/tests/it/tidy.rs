//! Rules about the tree that no compiler checks: which crate may use which, under what licences, and house rules.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The arrows of `docs/ARCHITECTURE.md`: a crate and the crates of ours that it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("kvorum", &["kvorum-server", "kvorum-cluster", "kvorum-engine"]),
    ("kvorum-server", &["kvorum-model", "kvorum-cluster"]),
    ("kvorum-cluster", &["kvorum-sync", "kvorum-engine", "kvorum-model"]),
    ("kvorum-sim", &["kvorum-cluster", "kvorum-sync", "kvorum-engine", "kvorum-model"]),
    ("kvorum-engine", &[]),
    ("kvorum-sync", &[]),
    ("kvorum-model", &[]),
];

/// Licences that a dependency may be used under, as `deny.toml` lists them.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Unicode-3.0",
    "Zlib",
    "CC0-1.0",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "Unlicense",
    "0BSD",
    "MIT-0",
];

const LINES_PER_FILE_MAX: usize = 600;

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).exec().expect("cargo metadata")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace root")
}

#[test]
fn arrows_between_crates_point_one_way() {
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    for package in metadata().workspace_packages() {
        let may = allowed.get(package.name.as_str());
        let may = may.unwrap_or_else(|| panic!("{} has no row in ARROWS", package.name));
        for dependency in &package.dependencies {
            let ours = dependency.name.starts_with("kvorum");
            let counts = dependency.kind == DependencyKind::Normal;
            if ours && counts && dependency.name != package.name.as_str() {
                assert!(
                    may.contains(&dependency.name.as_str()),
                    "{} may not depend on {}",
                    package.name,
                    dependency.name
                );
            }
        }
    }
}

#[test]
fn every_dependency_has_a_licence_from_the_list() {
    for package in &metadata().packages {
        let licence = package.license.clone().unwrap_or_default().replace('/', " OR ");
        let fits = |one: &str| LICENCES.contains(&one.trim().trim_matches(['(', ')']).trim());
        // An expression holds when each of its AND parts offers one licence of the list.
        let mut parts = licence.split(" AND ");
        assert!(
            !licence.is_empty() && parts.all(|part| part.split(" OR ").any(fits)),
            "{} {} has the licence {licence:?}",
            package.name,
            package.version
        );
    }
}

#[test]
fn every_direct_dependency_is_explained() {
    let explained =
        std::fs::read_to_string(root().join("docs/dependencies.md")).expect("docs/dependencies.md");
    for package in metadata().workspace_packages() {
        for dependency in &package.dependencies {
            let name = &dependency.name;
            assert!(
                name.starts_with("kvorum") || explained.contains(&format!("| `{name}` |")),
                "{name} (of {}) has no row in docs/dependencies.md",
                package.name
            );
        }
    }
}

#[test]
fn files_are_small_and_hold_no_unfinished_work() {
    let words =
        [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("FIX", "ME"), concat!("XX", "X:")];
    for file in sources(&root().join("crates")) {
        let text = std::fs::read_to_string(&file).expect("a source file");
        let lines = text.lines().count();
        assert!(lines <= LINES_PER_FILE_MAX, "{} has {lines} lines", file.display());
        for word in words {
            assert!(!text.contains(word), "{} contains {word}", file.display());
        }
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of the workspace") {
        let path = entry.expect("a folder entry").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

/// What `docs/consistency.md` names as proof is there: crate, file, function.
#[test]
fn the_guarantees_name_tests_that_exist() {
    let page = std::fs::read_to_string(root().join("docs/consistency.md")).expect("docs/consistency.md");
    let mut named = 0;
    for (file, test) in page.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::")) {
        named += 1;
        let (owner, rest) = file.split_once('/').unwrap_or_else(|| panic!("{file} names no crate"));
        let candidates = [format!("crates/{owner}/tests/it/{rest}.rs"), format!("crates/{owner}/{rest}.rs")];
        let text = candidates.iter().find_map(|path| std::fs::read_to_string(root().join(path)).ok());
        let text = text.unwrap_or_else(|| panic!("neither of {candidates:?} is there"));
        assert!(text.contains(&format!("fn {test}(")), "{file} has no test {test}");
    }
    assert!(named > 30, "only {named} tests are named");
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
    for row in rows.filter(|row| !row.starts_with("| operation |")) {
        assert!(row.contains("::"), "no test is named in: {row}");
    }
}
