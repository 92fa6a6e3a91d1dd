//! `appspec.yml` of a bundle, for hosts: version 0.0, Linux.
//!
//! What this agent can't do it refuses when it reads the file, not when it comes to it: another
//! system, another user without the right to become it, a timeout of nothing, ACLs and contexts.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde::Deserialize;

/// A parsed AppSpec.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AppSpec {
    pub(super) files: Vec<FileSpec>,
    pub(super) permissions: Vec<Permission>,
    /// Scripts by event, in order.
    pub(super) hooks: BTreeMap<String, Vec<Hook>>,
}

/// Copies a file or a folder of the bundle to a folder of the release.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileSpec {
    pub(super) source: String,
    pub(super) destination: String,
}

/// Sets the mode of what was installed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Permission {
    pub(super) object: String,
    #[serde(default = "all")]
    pub(super) pattern: String,
    #[serde(default)]
    pub(super) except: Vec<String>,
    pub(super) mode: Option<String>,
    #[serde(default, rename = "type")]
    pub(super) kinds: Vec<String>,
    owner: Option<String>,
    group: Option<String>,
    acls: Option<serde_json::Value>,
    context: Option<serde_json::Value>,
}

impl Permission {
    /// The mode as Unix has it: `755`, `0755` and `"0755"` are the same.
    pub(super) fn mode_bits(&self) -> Option<Result<u32, String>> {
        let text = self.mode.as_ref()?;
        let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o7777);
        Some(bits.ok_or_else(|| format!("the mode {text} isn't 1 to 4 octal digits")))
    }
}

fn all() -> String {
    "**".into()
}

/// A script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hook {
    pub(super) location: String,
    pub(super) timeout: Duration,
}

#[derive(Deserialize)]
struct Raw {
    version: serde_json::Value,
    os: String,
    #[serde(default)]
    files: Option<Vec<FileSpec>>,
    #[serde(default)]
    permissions: Option<Vec<Permission>>,
    #[serde(default)]
    hooks: Option<BTreeMap<String, Option<Vec<RawHook>>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHook {
    location: String,
    timeout: Option<u64>,
    runas: Option<String>,
    sudo: Option<bool>,
}

/// Events that may have scripts.
const SCRIPTED: [&str; 5] =
    ["ApplicationStop", "BeforeInstall", "AfterInstall", "ApplicationStart", "ValidateService"];
/// Scripts of one event together, and one script that names no timeout.
pub(super) const EVENT_LIMIT: u64 = 3_600;

impl AppSpec {
    /// Reads `appspec.yml` (or `appspec.yaml`) in an unpacked bundle.
    pub(super) fn read(bundle: &Path, is_root: bool) -> Result<Self, String> {
        let found = ["appspec.yml", "appspec.yaml"]
            .iter()
            .find_map(|name| std::fs::read_to_string(bundle.join(name)).ok());
        let text = found.ok_or("the bundle has no appspec.yml at its top")?;
        Self::parse(&text, is_root)
    }

    pub(super) fn parse(text: &str, is_root: bool) -> Result<Self, String> {
        let raw: Raw =
            serde_yaml::from_str(text).map_err(|error| format!("appspec.yml: {error}"))?;
        let version = match &raw.version {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if version != "0.0" && version != "0" {
            return Err(format!("appspec.yml: version must be 0.0, it is {version}"));
        }
        if !raw.os.eq_ignore_ascii_case("linux") {
            return Err(format!("appspec.yml: os must be linux, it is {}", raw.os));
        }
        let mut hooks = BTreeMap::new();
        for (event, scripts) in raw.hooks.unwrap_or_default() {
            if !SCRIPTED.contains(&event.as_str()) {
                return Err(format!("appspec.yml: {event} isn't an event with scripts"));
            }
            let mut parsed = Vec::new();
            for script in scripts.unwrap_or_default() {
                parsed.push(hook(&event, script, is_root)?);
            }
            hooks.insert(event, parsed);
        }
        let permissions = raw.permissions.unwrap_or_default();
        for permission in &permissions {
            let object = &permission.object;
            if permission.acls.is_some() || permission.context.is_some() {
                return Err(format!("appspec.yml: acls and context of {object} aren't supported"));
            }
            if (permission.owner.is_some() || permission.group.is_some()) && !is_root {
                return Err(format!("appspec.yml: owner and group of {object} need a root agent"));
            }
            if permission.owner.as_deref().is_some_and(|owner| owner != "root")
                || permission.group.as_deref().is_some_and(|group| group != "root")
            {
                return Err(format!("appspec.yml: owner and group of {object} can only be root"));
            }
            permission.mode_bits().transpose().map_err(|text| format!("appspec.yml: {text}"))?;
        }
        Ok(Self { files: raw.files.unwrap_or_default(), permissions, hooks })
    }
}

fn hook(event: &str, raw: RawHook, is_root: bool) -> Result<Hook, String> {
    let location = raw.location;
    if let Some(user) = raw.runas.filter(|user| user != "root" || !is_root) {
        return Err(format!(
            "appspec.yml: {location} of {event} shall run as {user}: this agent runs hooks as \
             itself only"
        ));
    }
    if raw.sudo.unwrap_or(false) && !is_root {
        return Err(format!("appspec.yml: {location} of {event} wants sudo, the agent isn't root"));
    }
    let timeout = raw.timeout.unwrap_or(EVENT_LIMIT);
    if timeout == 0 || timeout > EVENT_LIMIT {
        return Err(format!(
            "appspec.yml: the timeout of {location} must be 1 to {EVENT_LIMIT} s, it is {timeout}"
        ));
    }
    Ok(Hook { location, timeout: Duration::from_secs(timeout) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
version: 0.0
os: linux
files:
  - source: /
    destination: /app
permissions:
  - object: /app
    pattern: '*.sh'
    mode: 755
    type: [file]
hooks:
  ApplicationStop:
    - location: scripts/stop.sh
      timeout: 10
      runas: root
  ApplicationStart:
    - location: scripts/start.sh
";

    #[test]
    fn an_appspec_is_read() {
        let spec = AppSpec::parse(GOOD, true).unwrap();
        assert_eq!(spec.files[0].destination, "/app");
        assert_eq!(spec.permissions[0].mode_bits(), Some(Ok(0o755)));
        assert_eq!(spec.hooks["ApplicationStop"][0].timeout, Duration::from_secs(10));
        assert_eq!(spec.hooks["ApplicationStart"][0].location, "scripts/start.sh");
        let short = AppSpec::parse("version: '0.0'\nos: linux\n", false).unwrap();
        assert!(short.files.is_empty() && short.hooks.is_empty());
    }

    #[test]
    fn what_the_agent_cannot_do_is_refused_by_name() {
        let refused = |from: &str, to: &str, is_root: bool| {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD);
            AppSpec::parse(&text, is_root).unwrap_err()
        };
        assert!(refused("0.0", "1.0", true).contains("version"));
        assert!(refused("os: linux", "os: windows", true).contains("windows"));
        assert!(refused("runas: root", "runas: www", true).contains("www"));
        assert!(refused("timeout: 10", "timeout: 0", false).contains("stop.sh"));
        assert!(refused("timeout: 10", "timeout: 4000", true).contains("3600"));
        assert!(refused("ApplicationStart:", "Start:", true).contains("Start"));
        assert!(refused("mode: 755", "mode: 888", true).contains("888"));
        assert!(AppSpec::parse(GOOD, false).unwrap_err().contains("root"));
    }
}
