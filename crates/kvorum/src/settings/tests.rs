//! Settings from every source.

use super::*;

fn sources(
    file: Option<&str>,
    environment: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> (Sources, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kvorum.toml");
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
    }
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let sources = Sources {
        file: file.map(|_| path),
        environment: environment.iter().map(own).collect(),
        flags: flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
    };
    (sources, folder)
}

fn problem(file: Option<&str>, environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> String {
    let (sources, _folder) = sources(file, environment, flags);
    Settings::load(&sources).unwrap_err().to_string()
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file = "memory = \"64MiB\"\nthreads = 3\nresp = \"127.0.0.1:1\"\nprotected_mode = false\n";
    let (sources, _folder) = sources(
        Some(file),
        &[("KVORUM_THREADS", "4"), ("KVORUM_RESP", "127.0.0.1:2"), ("HOME", "/")],
        &[("resp", "127.0.0.1:3")],
    );
    let settings = Settings::load(&sources).unwrap();
    assert_eq!(settings.memory_bytes, 64 << 20);
    assert_eq!(settings.threads, 4);
    assert_eq!(settings.resp, "127.0.0.1:3");
    assert!(!settings.protected_mode);
    assert_eq!(settings.http.as_deref(), Some("127.0.0.1:8379"));
}

#[test]
fn what_is_printed_reads_back_as_the_same_settings() {
    let (sources, _folder) = sources(
        None,
        &[],
        &[("http", "off"), ("requirepass", "p\"q\\"), ("wal_dir", "/logs"), ("wal_retention", "all")],
    );
    let settings = Settings::load(&sources).unwrap();
    let (again, _folder) = self::sources(Some(&settings.print()), &[], &[]);
    assert_eq!(Settings::load(&again).unwrap(), settings);
    let (defaults, _folder) = self::sources(Some(&Settings::defaults().print()), &[], &[]);
    assert_eq!(Settings::load(&defaults).unwrap(), Settings::defaults());
}

#[test]
fn unknown_names_are_errors_with_a_hint() {
    let text = problem(Some("durabilty = \"synced\"\n"), &[], &[]);
    assert!(text.ends_with("unknown setting \"durabilty\", did you mean \"durability\"?"), "{text}");
    let text = problem(None, &[("KVORUM_MEMROY", "1GiB")], &[]);
    assert_eq!(text, "environment: unknown variable KVORUM_MEMROY, did you mean \"KVORUM_MEMORY\"?");
    let text = problem(Some("zzz = 1\n"), &[], &[]);
    assert!(text.ends_with("unknown setting \"zzz\"; `kvorum config --print` shows all"), "{text}");
}

#[test]
fn bad_values_say_where_they_stand_and_what_would_be_right() {
    let text = problem(None, &[("KVORUM_DURABILITY", "fsync")], &[]);
    assert_eq!(text, "KVORUM_DURABILITY: \"fsync\" is not synced, written or buffered");
    let text = problem(None, &[], &[("memory", "1MiB")]);
    assert_eq!(text, "--memory: \"1MiB\" is not at least 16MiB");
    let text = problem(Some("threads = [1]\n"), &[], &[]);
    assert!(text.ends_with("kvorum.toml: threads is array, expected N"), "{text}");
    let text = problem(Some("threads = \n"), &[], &[]);
    assert!(text.contains("kvorum.toml: TOML parse error at line 1"), "{text}");
    let missing = Sources { file: Some("/no/such/file.toml".into()), ..Sources::default() };
    let text = Settings::load(&missing).unwrap_err().to_string();
    assert!(text.starts_with("/no/such/file.toml: cannot be read: "), "{text}");
}
