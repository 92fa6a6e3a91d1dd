//! Jobs, their steps and their services.

use std::{collections::BTreeMap, time::Duration};

use pipeyard_model::{
    SecretName,
    plan::{JobSpec, Readiness, ServiceSpec, StepSpec},
};

use crate::{
    Code, DEFAULT_TIMEOUT_SECONDS, MAX_RETRY, MAX_STEPS,
    check::{Checker, Field, Fields},
    diagnostic::quote,
    image, keys, value,
    yaml::{Kind, Span},
};

/// The longest script, in bytes.
const MAX_SCRIPT: usize = 100 * 1024;
/// The longest value of a variable, in bytes.
const MAX_VALUE: usize = 32 * 1024;
/// The most entries in the smaller lists of a job.
const MAX_ITEMS: usize = 200;
/// The most services of a job.
const MAX_SERVICES: usize = 20;

impl<'a> Checker<'_, 'a> {
    /// A job without its name and needs. `None` if it can't stand, and then the report says why.
    pub(crate) fn job(&mut self, fields: &Fields<'_, 'a>) -> Option<JobSpec> {
        let image = self.required(fields, "image").and_then(|field| self.image(field));
        let steps = self.required(fields, "run").map(|field| self.steps(field));
        let mut env = fields.get("env").map(|field| self.env(field)).unwrap_or_default();
        let secrets =
            fields.get("secrets").map(|field| self.secrets(field, fields)).unwrap_or_default();
        let services = fields.get("services").map(|field| self.services(field)).unwrap_or_default();
        let timeout = fields.get("timeout").and_then(|field| self.duration(field));
        let artifacts =
            fields.get("artifacts").map(|field| self.paths(field, "a path")).unwrap_or_default();
        let tests = fields
            .get("tests")
            .map(|field| self.paths(field, "the path of a JUnit report"))
            .unwrap_or_default();
        let retry =
            fields.get("retry").and_then(|field| self.number(field, 0..=MAX_RETRY)).unwrap_or(0);
        let once = fields.get("once").and_then(|field| self.switch(field)).unwrap_or(false);
        if once
            && retry > 0
            && let Some(field) = fields.get("retry")
        {
            self.report.error(Code::P105, field.key, "`retry` and `once` exclude each other").help(
                "a job marked `once` is never started again by itself; remove one of the two",
            );
        }
        let labels = fields.get("labels").map(|field| self.labels(field)).unwrap_or_default();
        for (name, value) in self.context.variables() {
            env.insert(name.to_owned(), value.replace('\0', ""));
        }
        Some(JobSpec {
            image: image?,
            steps: steps.filter(|steps| !steps.is_empty())?,
            env,
            secrets,
            services,
            timeout: timeout.unwrap_or(Duration::from_secs(DEFAULT_TIMEOUT_SECONDS)),
            artifacts,
            tests,
            retry: u32::try_from(retry).unwrap_or(0),
            once,
            labels,
        })
    }

    fn image(&mut self, field: Field<'_, 'a>) -> Option<String> {
        let (text, span) = self.filled(field, "a container image")?;
        let filled = self.fill((text, span))?;
        if let Err(why) = image::check(&filled) {
            let mut message = format!("{} is not an image: {why}", quote(text));
            if filled != text {
                message.push_str(&format!(" (filled in, it is {})", quote(&filled)));
            }
            let diagnostic = self.report.error(Code::P208, span, message);
            diagnostic.help("write it like `rust:1.95` or `registry.example.com/team/app:v1`");
            if why.contains("capital") {
                diagnostic.suggestion = Some(text.to_lowercase());
            }
            return None;
        }
        Some(filled.into_owned())
    }

    fn steps(&mut self, field: Field<'_, 'a>) -> Vec<StepSpec> {
        let items = self.items(field, "a script", MAX_STEPS);
        items.into_iter().filter_map(|item| self.step(item)).collect()
    }

    fn step(&mut self, item: Field<'_, 'a>) -> Option<StepSpec> {
        match &item.node.kind {
            Kind::Map(entries) => {
                // `- echo: hello` is YAML for a map, and hardly ever meant as one.
                let known =
                    entries.iter().any(|e| keys::STEP.names().any(|name| e.key.text == name));
                if !known && let Some(entry) = entries.first() {
                    let message = format!(
                        "the `: ` makes a map of this line; a step has no key {}",
                        quote(&entry.key.text)
                    );
                    self.report
                        .error(Code::P101, entry.key.span, message)
                        .help("put the whole command in quotes, or use `|`")
                        .allowed(keys::STEP.names());
                    return None;
                }
                let at = entries.first().map_or(item.key, |entry| entry.key.span);
                let fields = self.fields(Field { key: at, ..item }, &keys::STEP)?;
                let run = self.required(&fields, "run").and_then(|field| self.script(field));
                let name = fields.get("name").and_then(|field| self.filled(field, "a name"));
                let image = fields.get("image").and_then(|field| self.image(field));
                let env = fields.get("env").map(|field| self.env(field)).unwrap_or_default();
                let timeout = fields.get("timeout").and_then(|field| self.duration(field));
                let run = run?;
                let name = name.map_or_else(|| first_line(&run), |(name, _)| first_line(name));
                Some(StepSpec { name, run, image, env, timeout })
            }
            Kind::Null | Kind::Text { .. } | Kind::List(_) | Kind::Broken => {
                let run = self.script(item)?;
                Some(StepSpec {
                    name: first_line(&run),
                    run,
                    image: None,
                    env: BTreeMap::new(),
                    timeout: None,
                })
            }
        }
    }

    fn script(&mut self, field: Field<'_, 'a>) -> Option<String> {
        let (text, span) = self.filled(field, "a script")?;
        if text.len() > MAX_SCRIPT {
            let message =
                format!("the script has {} bytes; at most {MAX_SCRIPT} can be run", text.len());
            self.report
                .error(Code::P213, span, message)
                .help("put it into a file of the repository");
            return None;
        }
        if text.contains('\0') {
            self.report.error(Code::P213, span, "a script can't hold a NUL character");
            return None;
        }
        self.script_is_free((text, span)).then(|| text.to_owned())
    }

    fn env(&mut self, field: Field<'_, 'a>) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        for (name, value) in self.entries(field, "a map of variables", MAX_ITEMS) {
            if SecretName::new(name).is_err() {
                let message = format!("{} can't be a variable's name", quote(name));
                self.report
                    .error(Code::P207, value.key, message)
                    .help("use letters, digits and `_`, at most 100, not starting with a digit");
                continue;
            }
            if name.starts_with("PIPEYARD_") {
                let message = format!("{} is one of Pipeyard's own variables", quote(name));
                self.report.error(Code::P207, value.key, message).help("choose another name");
                continue;
            }
            if value.is_null() {
                self.report
                    .error(Code::P104, value.key, format!("{} has no value", quote(name)))
                    .help("write \"\" for an empty value");
                continue;
            }
            let Some((text, span)) = self.text(value, "text") else { continue };
            if !self.variable_is_free(name, (text, span)) {
                continue;
            }
            let Some(filled) = self.fill((text, span)) else { continue };
            if filled.contains('\0') || filled.len() > MAX_VALUE {
                let message =
                    format!("a variable can't hold a NUL character or more than {MAX_VALUE} bytes");
                self.report.error(Code::P213, span, message);
                continue;
            }
            env.insert(name.to_owned(), filled.into_owned());
        }
        env
    }

    fn secrets(&mut self, field: Field<'_, 'a>, job: &Fields<'_, 'a>) -> Vec<SecretName> {
        let mut secrets = Vec::new();
        let in_env = |name: &str| match job.get("env").map(|env| &env.node.kind) {
            Some(Kind::Map(entries)) => entries.iter().any(|entry| entry.key.text == name),
            _ => false,
        };
        for (text, span) in self.texts(field, "a secret's name", MAX_ITEMS) {
            match SecretName::new(text) {
                Ok(_) if text.starts_with("PIPEYARD_") => {
                    let message = format!("{} is one of Pipeyard's own variables", quote(text));
                    self.report
                        .error(Code::P206, span, message)
                        .help("choose another name for the secret");
                }
                Ok(_) if in_env(text) => {
                    let message = format!("{} is a secret and a variable under `env`", quote(text));
                    self.report
                        .error(Code::P218, span, message)
                        .help("the step would find only one of them; rename one");
                }
                Ok(name) if secrets.contains(&name) => self.twice(text, span),
                Ok(name) => secrets.push(name),
                Err(bad) => {
                    let message = format!("{} can't be a secret's name", quote(text));
                    self.report.error(Code::P206, span, message).help(bad.rule);
                }
            }
        }
        secrets
    }

    fn twice(&mut self, text: &str, span: Span) {
        let message = format!("{} stands twice in the list", quote(text));
        self.report.warning(Code::P219, span, message).help("remove one of them");
    }

    fn services(&mut self, field: Field<'_, 'a>) -> Vec<ServiceSpec> {
        let mut services: Vec<ServiceSpec> = Vec::new();
        for item in self.items(field, "an image or a service", MAX_SERVICES) {
            let Some((service, at)) = self.service(item) else { continue };
            if services.iter().any(|other| other.alias == service.alias) {
                let message = format!("two services have the host name {}", quote(&service.alias));
                self.report.error(Code::P212, at, message).help("give one of them another `alias`");
                continue;
            }
            services.push(service);
        }
        services
    }

    fn service(&mut self, item: Field<'_, 'a>) -> Option<(ServiceSpec, Span)> {
        let Kind::Map(entries) = &item.node.kind else {
            let image = self.image(item)?;
            let alias = self.alias(image::default_alias(&image), item.span())?;
            let (env, command) = (BTreeMap::new(), Vec::new());
            return Some((
                ServiceSpec { alias, image, env, command, ready: Readiness::Automatic },
                item.span(),
            ));
        };
        let at = entries.first().map_or(item.key, |entry| entry.key.span);
        let fields = self.fields(Field { key: at, ..item }, &keys::SERVICE)?;
        let image = self.required(&fields, "image").and_then(|field| self.image(field));
        let alias = match fields.get("alias") {
            Some(field) => {
                let (text, span) = self.filled(field, "a host name")?;
                self.alias(text.to_owned(), span).map(|alias| (alias, span))
            }
            None => {
                let image = image.as_deref()?;
                self.alias(image::default_alias(image), at).map(|alias| (alias, at))
            }
        };
        let env = fields.get("env").map(|field| self.env(field)).unwrap_or_default();
        let command = fields.get("command").map(|field| self.command(field)).unwrap_or_default();
        let port = fields.get("port").and_then(|field| self.number(field, 1..=65_535));
        let ready =
            port.and_then(|p| u16::try_from(p).ok()).map_or(Readiness::Automatic, Readiness::Port);
        let (alias, at) = alias?;
        Some((ServiceSpec { alias, image: image?, env, command, ready }, at))
    }

    fn alias(&mut self, alias: String, span: Span) -> Option<String> {
        if image::is_host_name(&alias) {
            return Some(alias);
        }
        let message = format!("{} can't be a host name", quote(&alias));
        self.report
            .error(Code::P212, span, message)
            .help("give the service an `alias` of a-z, 0-9 and `-`, at most 63");
        None
    }

    fn command(&mut self, field: Field<'_, 'a>) -> Vec<String> {
        if let Kind::Text { text, .. } = &field.node.kind {
            if text.contains(['"', '\'', '\\', '$', '|', '&', ';', '<', '>', '`', '\n']) {
                self.report
                    .error(
                        Code::P213,
                        field.span(),
                        "no shell reads this command, so it can't hold quotes or shell characters",
                    )
                    .help("write a list of words: `[sh, -c, \"…\"]`");
                return Vec::new();
            }
            return text.split_whitespace().map(str::to_owned).collect();
        }
        let words = self.items(field, "a word of the command", MAX_ITEMS);
        let words: Vec<_> =
            words.into_iter().filter_map(|word| self.text(word, "a word")).collect();
        words
            .into_iter()
            .filter(|&word| self.word_is_free(word))
            .map(|word| word.0.to_owned())
            .collect()
    }

    pub(crate) fn duration(&mut self, field: Field<'_, 'a>) -> Option<Duration> {
        let (text, span) = self.filled(field, "a duration")?;
        match value::duration(text) {
            Ok(duration) => Some(duration),
            Err(why) => {
                self.report.error(
                    Code::P209,
                    span,
                    format!("{} is not a duration: {why}", quote(text)),
                );
                None
            }
        }
    }

    /// Paths and patterns in the workspace, each once.
    fn paths(&mut self, field: Field<'_, 'a>, what: &str) -> Vec<String> {
        let mut paths: Vec<String> = Vec::new();
        for (text, span) in self.texts(field, what, MAX_ITEMS) {
            match self.path((text, span), true) {
                Some(path) if paths.contains(&path) => self.twice(text, span),
                Some(path) => paths.push(path),
                None => {}
            }
        }
        paths
    }

    /// A path in the workspace, filled in; a pattern if `glob`.
    pub(crate) fn path(&mut self, (text, span): (&str, Span), glob: bool) -> Option<String> {
        let filled = self.fill((text, span))?;
        if let Err(why) = value::workspace_path(&filled, glob) {
            self.report.error(
                Code::P211,
                span,
                format!("{} is not a path in the workspace: {why}", quote(&filled)),
            );
            return None;
        }
        Some(filled.trim_start_matches("./").to_owned())
    }

    fn labels(&mut self, field: Field<'_, 'a>) -> Vec<String> {
        let mut labels: Vec<String> = Vec::new();
        for (text, span) in self.texts(field, "a label", MAX_ITEMS) {
            let head = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
            let plain = text.bytes().all(|b| {
                b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'=' | b':')
            });
            if !head || !plain || text.len() > 63 {
                self.report
                    .error(Code::P214, span, format!("{} can't be a label", quote(text)))
                    .help("use letters, digits, `_`, `-`, `.`, `=` and `:`, at most 63, starting with a letter or digit");
            } else if labels.iter().any(|label| label == text) {
                self.twice(text, span);
            } else {
                labels.push(text.to_owned());
            }
        }
        labels
    }
}

/// What a step is called when the file gives it no name: its first line with text, cut.
fn first_line(script: &str) -> String {
    let line =
        script.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let line =
        line.or_else(|| script.lines().map(str::trim).find(|line| !line.is_empty())).unwrap_or("");
    let clean = line.chars().filter(|c| !c.is_control());
    let mut name: String = clean.clone().take(80).collect();
    if clean.count() > 80 {
        name.push('…');
    }
    name
}
