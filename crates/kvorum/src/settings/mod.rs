//! Settings: one table drives the file, the environment, the flags and what `kvorum config --print` shows.
//!
//! Rising precedence: default, TOML file, `KVORUM_…`, flag.

mod parse;
mod table;

pub(crate) use parse::show_bytes;
pub(crate) use table::TABLE;

use kvorum_cluster::Durability;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What goes before the name of a setting in the environment.
pub(crate) const ENVIRONMENT_PREFIX: &str = "KVORUM_";

/// The variable (and flag `--config`) that names the settings file; not a setting itself.
pub(crate) const CONFIG_VARIABLE: &str = "KVORUM_CONFIG";

/// All that the program can be told. The table documents each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    pub(crate) wal_dir: Option<PathBuf>,
    pub(crate) resp: String,
    pub(crate) resp_cluster: Option<String>,
    pub(crate) http: Option<String>,
    pub(crate) advertise: Option<String>,
    pub(crate) durability: Durability,
    pub(crate) memory_bytes: u64,
    pub(crate) max_value_bytes: Option<u64>,
    pub(crate) background_bytes_per_second: u64,
    pub(crate) keep_whole_wal: bool,
    pub(crate) requirepass: Option<String>,
    pub(crate) protected_mode: bool,
    pub(crate) threads: usize,
    pub(crate) max_clients: usize,
    pub(crate) timeout_seconds: usize,
    pub(crate) http_hosts: Vec<String>,
    pub(crate) entity_namespace: String,
    pub(crate) name: Option<String>,
    pub(crate) peer: Option<String>,
    pub(crate) peers: Vec<(String, String)>,
    pub(crate) join: Option<String>,
    pub(crate) cluster_secret_file: Option<PathBuf>,
    pub(crate) cluster_tls_certificate: Option<PathBuf>,
    pub(crate) cluster_tls_key: Option<PathBuf>,
    pub(crate) cluster_tls_authority: Option<PathBuf>,
    pub(crate) log: String,
}

/// One setting: its name in the file (in the environment `KVORUM_` and upper case, as a flag with dashes).
pub(crate) struct Setting {
    /// Name in the file.
    pub(crate) name: &'static str,
    /// What stands for its value in help texts.
    pub(crate) value: &'static str,
    /// The default, as it would be written.
    pub(crate) default: &'static str,
    /// What it does, for help and the printed file.
    pub(crate) help: &'static str,
    /// Takes a value as written; the error says what would be right.
    pub(crate) set: fn(&mut Settings, &str) -> Result<(), String>,
    /// The value as it would be written.
    pub(crate) get: fn(&Settings) -> String,
    /// Whether TOML writes it in quotes.
    pub(crate) quoted: bool,
}

impl Setting {
    /// Its name as a flag, without the dashes before it.
    pub(crate) fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Its name in the environment.
    pub(crate) fn variable(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", self.name.to_uppercase())
    }
}

/// Why the settings can't be used: where the value stands, what is wrong, what would be right.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub(crate) struct SettingsError {
    place: String,
    problem: String,
}

impl SettingsError {
    fn new(place: impl Into<String>, problem: impl Into<String>) -> SettingsError {
        SettingsError { place: place.into(), problem: problem.into() }
    }
}

/// Where values come from, besides the defaults.
#[derive(Default)]
pub(crate) struct Sources {
    /// The settings file, if one is named.
    pub(crate) file: Option<PathBuf>,
    /// Environment variables.
    pub(crate) environment: BTreeMap<String, String>,
    /// Flags that were given: the setting's name and the value.
    pub(crate) flags: Vec<(&'static str, String)>,
}

impl Settings {
    /// The defaults.
    pub(crate) fn defaults() -> Settings {
        let mut settings = Settings {
            data: PathBuf::new(),
            wal_dir: None,
            resp: String::new(),
            resp_cluster: None,
            http: None,
            advertise: None,
            durability: Durability::Synced,
            memory_bytes: 0,
            max_value_bytes: None,
            background_bytes_per_second: 0,
            keep_whole_wal: false,
            requirepass: None,
            protected_mode: true,
            threads: 0,
            max_clients: 0,
            timeout_seconds: 0,
            http_hosts: Vec::new(),
            entity_namespace: String::new(),
            name: None,
            peer: None,
            peers: Vec::new(),
            join: None,
            cluster_secret_file: None,
            cluster_tls_certificate: None,
            cluster_tls_key: None,
            cluster_tls_authority: None,
            log: String::new(),
        };
        for setting in TABLE {
            let taken = (setting.set)(&mut settings, setting.default);
            debug_assert!(taken.is_ok(), "the default of {} is refused: {taken:?}", setting.name);
        }
        settings
    }

    /// Reads all sources, in rising precedence.
    pub(crate) fn load(sources: &Sources) -> Result<Settings, SettingsError> {
        let mut settings = Settings::defaults();
        if let Some(file) = &sources.file {
            settings.read_file(file)?;
        }
        settings.read_environment(&sources.environment)?;
        for (name, value) in &sources.flags {
            let setting =
                by_name(name).ok_or_else(|| SettingsError::new("flags", format!("unknown {name}")))?;
            settings.set(setting, value, &format!("--{}", setting.flag()))?;
        }
        Ok(settings)
    }

    fn read_file(&mut self, file: &Path) -> Result<(), SettingsError> {
        let place = file.display().to_string();
        let text = std::fs::read_to_string(file)
            .map_err(|error| SettingsError::new(&place, format!("cannot be read: {error}")))?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            SettingsError::new(&place, error.to_string().trim().to_owned())
        })?;
        for (key, value) in &table {
            let setting = by_name(key).ok_or_else(|| {
                SettingsError::new(
                    &place,
                    format!("unknown setting {key:?}{}", hint(key, |setting| setting.name.to_owned())),
                )
            })?;
            let written = match value {
                toml::Value::String(text) => text.clone(),
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(flag) => if *flag { "yes" } else { "no" }.to_owned(),
                other => {
                    let problem = format!("{key} is {}, expected {}", other.type_str(), setting.value);
                    return Err(SettingsError::new(&place, problem));
                }
            };
            self.set(setting, &written, &format!("{place}: {key}"))?;
        }
        Ok(())
    }

    fn read_environment(&mut self, environment: &BTreeMap<String, String>) -> Result<(), SettingsError> {
        let ours = environment
            .iter()
            .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX) && *name != CONFIG_VARIABLE);
        for (name, value) in ours {
            let setting = TABLE.iter().find(|setting| setting.variable() == *name);
            let setting = setting.ok_or_else(|| {
                SettingsError::new(
                    "environment",
                    format!("unknown variable {name}{}", hint(name, Setting::variable)),
                )
            })?;
            self.set(setting, value, name)?;
        }
        Ok(())
    }

    fn set(&mut self, setting: &Setting, value: &str, place: &str) -> Result<(), SettingsError> {
        (setting.set)(self, value)
            .map_err(|right| SettingsError::new(place, format!("{value:?} is not {right}")))
    }

    /// The whole as a documented TOML file.
    pub(crate) fn print(&self) -> String {
        let mut text = String::from(
            "# Kvorum's settings. Each can also be given in the environment (KVORUM_ and the name in upper case) or as a flag\n\
             # (--name, with dashes); a flag wins over the environment, the environment over this file.\n",
        );
        for setting in TABLE {
            text.push('\n');
            for line in setting.help.lines() {
                text.push_str(&format!("# {line}\n"));
            }
            let default = if setting.default.is_empty() { "none" } else { setting.default };
            text.push_str(&format!("# Default: {default}\n"));
            let value = (setting.get)(self);
            let name = setting.name;
            if value.is_empty() {
                text.push_str(&format!("# {name} = \"{}\"\n", setting.value));
            } else if setting.quoted {
                text.push_str(&format!("{name} = {}\n", toml::Value::String(value)));
            } else {
                text.push_str(&format!("{name} = {value}\n"));
            }
        }
        text
    }
}

fn by_name(name: &str) -> Option<&'static Setting> {
    TABLE.iter().find(|setting| setting.name == name)
}

/// ", did you mean …?" for the nearest name, if one is near.
fn hint(odd: &str, name: impl Fn(&Setting) -> String) -> String {
    let near = TABLE.iter().map(name).map(|name| (strsim::jaro_winkler(odd, &name), name));
    match near.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((similarity, name)) if similarity > 0.75 => format!(", did you mean {name:?}?"),
        _ => String::from("; `kvorum config --print` shows all"),
    }
}

#[cfg(test)]
mod tests;
