//! Walking the tree: maps with known keys, text, lists, switches, numbers. Every finding points at the
//! key or value that is wrong.

use std::rc::Rc;

use crate::{
    Code, Context,
    diagnostic::{Report, nearest, quote},
    keys::{Section, foreign},
    yaml::{Kind, Node, Span},
};

/// What every part of the checker needs.
#[derive(Debug)]
pub(crate) struct Checker<'c, 'a> {
    pub(crate) report: Report<'a>,
    pub(crate) context: &'c Context,
}

/// A value with the place to blame when there is nothing: its key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'t, 'a> {
    pub(crate) key: Span,
    pub(crate) node: &'t Node<'a>,
}

impl<'a> Field<'_, 'a> {
    /// The value's place, or the key's when there is no value.
    pub(crate) fn span(&self) -> Span {
        match self.node.kind {
            Kind::Null => self.key,
            Kind::Text { .. } | Kind::List(_) | Kind::Map(_) | Kind::Broken => self.node.span,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.node.kind, Kind::Null)
    }
}

/// The values of one map by key.
#[derive(Debug)]
pub(crate) struct Fields<'t, 'a> {
    /// Where the map is named: its own key, or its first line.
    pub(crate) at: Span,
    section: &'static Section,
    found: Vec<(&'static str, Field<'t, 'a>)>,
    /// Keys that a misspelt one probably means; they aren't reported as missing too.
    meant: Vec<String>,
}

impl<'t, 'a> Fields<'t, 'a> {
    pub(crate) fn get(&self, name: &str) -> Option<Field<'t, 'a>> {
        debug_assert!(
            self.section.names().any(|known| known == name),
            "{name} is not in the table"
        );
        self.found.iter().find(|(found, _)| *found == name).map(|(_, field)| *field)
    }
}

impl<'a> Checker<'_, 'a> {
    /// The keys of a map, checked against the section's table.
    pub(crate) fn fields<'t>(
        &mut self,
        field: Field<'t, 'a>,
        section: &'static Section,
    ) -> Option<Fields<'t, 'a>> {
        if matches!(field.node.kind, Kind::Broken) {
            return None;
        }
        let Kind::Map(entries) = &field.node.kind else {
            let what = format!(
                "{} is a map of keys, and here is {}",
                section.what,
                field.node.kind.words()
            );
            let found = self.report.error(Code::P102, field.span(), what).allowed(section.names());
            if matches!(field.node.kind, Kind::List(_)) {
                found.help("write its keys without dashes");
            }
            return None;
        };
        let mut found = Vec::with_capacity(entries.len().min(section.keys.len()));
        let mut meant = Vec::new();
        for entry in entries {
            let name: &str = &entry.key.text;
            if let Some(key) = section.keys.iter().find(|key| key.name == name) {
                found.push((key.name, Field { key: entry.key.span, node: &entry.value }));
            } else if !(section.path.is_empty() && name.starts_with("x-")) {
                let message = format!("{} has no key {}", section.what, quote(name));
                let hint =
                    foreign(section.path, name).or_else(|| misplaced_job(section, &entry.value));
                let diagnostic =
                    self.report.error(Code::P101, entry.key.span, message).allowed(section.names());
                match hint {
                    Some(hint) => {
                        let named = section.names().filter(|key| hint.contains(&format!("`{key}")));
                        meant.extend(named.map(str::to_owned));
                        diagnostic.help(hint)
                    }
                    None => diagnostic.nearest(name, section.names()),
                };
                meant.extend(diagnostic.suggestion.clone());
            }
        }
        Some(Fields { at: field.key, section, found, meant })
    }

    /// A key that has to be there.
    pub(crate) fn required<'t>(
        &mut self,
        fields: &Fields<'t, 'a>,
        name: &'static str,
    ) -> Option<Field<'t, 'a>> {
        let found = fields.get(name);
        if found.is_none() && !fields.meant.iter().any(|meant| meant == name) {
            let form =
                fields.section.keys.iter().find(|key| key.name == name).map_or("", |key| key.form);
            let message = format!("{} needs the key `{name}`", fields.section.what);
            self.report
                .error(Code::P103, fields.at, message)
                .help(format!("add `{name}:` with {form}"));
        }
        found
    }

    /// Says that nothing stands where `what` is needed.
    pub(crate) fn nothing(&mut self, at: Span, what: &str) {
        self.report.error(Code::P104, at, format!("{what} is missing here"));
    }

    /// Says that another kind of value is expected.
    pub(crate) fn wrong_kind(&mut self, field: Field<'_, 'a>, what: &str) {
        match field.node.kind {
            Kind::Null => self.nothing(field.span(), what),
            Kind::Broken => {}
            Kind::Text { .. } | Kind::List(_) | Kind::Map(_) => {
                let found = field.node.kind.words();
                self.report.error(
                    Code::P102,
                    field.span(),
                    format!("{what} is expected, and here is {found}"),
                );
            }
        }
    }

    /// Text in any of YAML's forms; `what` completes "… is expected".
    pub(crate) fn text<'t>(&mut self, field: Field<'t, 'a>, what: &str) -> Option<(&'t str, Span)> {
        match &field.node.kind {
            Kind::Text { text, .. } => Some((text, field.node.span)),
            Kind::Null | Kind::List(_) | Kind::Map(_) | Kind::Broken => {
                self.wrong_kind(field, what);
                None
            }
        }
    }

    /// Text that isn't empty.
    pub(crate) fn filled<'t>(
        &mut self,
        field: Field<'t, 'a>,
        what: &str,
    ) -> Option<(&'t str, Span)> {
        let (text, span) = self.text(field, what)?;
        if text.trim().is_empty() {
            self.nothing(span, what);
            return None;
        }
        Some((text, span))
    }

    /// One value, or the items of a list, at most `most`.
    pub(crate) fn items<'t>(
        &mut self,
        field: Field<'t, 'a>,
        what: &str,
        most: usize,
    ) -> Vec<Field<'t, 'a>> {
        match &field.node.kind {
            Kind::List(items) if items.is_empty() => {
                self.report
                    .error(
                        Code::P104,
                        field.span(),
                        format!("the list is empty; {what} is expected"),
                    )
                    .help("remove the key if nothing is meant");
                Vec::new()
            }
            Kind::List(items) if items.len() > most => {
                let span = items.get(most).map_or(field.key, |item| item.span);
                let message =
                    format!("the list has {} items; at most {most} are allowed", items.len());
                self.report.error(Code::P106, span, message);
                Vec::new()
            }
            Kind::List(items) => {
                items.iter().map(|item| Field { key: item.span, node: item }).collect()
            }
            Kind::Null => {
                self.nothing(field.key, what);
                Vec::new()
            }
            Kind::Broken => Vec::new(),
            Kind::Text { .. } | Kind::Map(_) => vec![field],
        }
    }

    /// One text or a list of texts, at most `most`, none empty.
    pub(crate) fn texts<'t>(
        &mut self,
        field: Field<'t, 'a>,
        what: &str,
        most: usize,
    ) -> Vec<(&'t str, Span)> {
        let items = self.items(field, what, most);
        items.into_iter().filter_map(|item| self.filled(item, what)).collect()
    }

    /// The entries of a map from free names, at most `most`.
    pub(crate) fn entries<'t>(
        &mut self,
        field: Field<'t, 'a>,
        what: &str,
        most: usize,
    ) -> Vec<(&'t str, Field<'t, 'a>)> {
        match &field.node.kind {
            Kind::Map(entries) if entries.is_empty() => {
                self.nothing(field.key, what);
                Vec::new()
            }
            Kind::Map(entries) if entries.len() > most => {
                let message =
                    format!("there are {} entries; at most {most} are allowed", entries.len());
                self.report.error(Code::P106, entries[most].key.span, message);
                Vec::new()
            }
            Kind::Map(entries) => entries
                .iter()
                .map(|entry| {
                    (&*entry.key.text, Field { key: entry.key.span, node: rc(&entry.value) })
                })
                .collect(),
            Kind::List(_) => {
                let message = format!("{what} is expected, and here is a list");
                let found = self.report.error(Code::P102, field.span(), message);
                found.help("write each as `NAME:` with its value, without dashes");
                Vec::new()
            }
            Kind::Null | Kind::Text { .. } | Kind::Broken => {
                self.wrong_kind(field, what);
                Vec::new()
            }
        }
    }

    /// `true` or `false`, without quotes.
    pub(crate) fn switch(&mut self, field: Field<'_, 'a>) -> Option<bool> {
        if let Kind::Text { text, plain: true } = &field.node.kind
            && let Ok(value) = text.parse()
        {
            return Some(value);
        }
        let written = match &field.node.kind {
            Kind::Text { text, .. } => quote(text),
            Kind::Broken => return None,
            other @ (Kind::Null | Kind::List(_) | Kind::Map(_)) => other.words().to_owned(),
        };
        let message = format!("`true` or `false` is expected, and here is {written}");
        self.report.error(Code::P102, field.span(), message).allowed(["true", "false"]);
        None
    }

    /// A whole number within bounds.
    pub(crate) fn number(
        &mut self,
        field: Field<'_, 'a>,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let what = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let (text, span) = self.filled(field, &what)?;
        match text.parse() {
            Ok(number) if bounds.contains(&number) && text.bytes().all(|b| b.is_ascii_digit()) => {
                Some(number)
            }
            _ => {
                self.report.error(Code::P210, span, format!("{} is not {what}", quote(text)));
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn unknown_word(
        &mut self,
        code: Code,
        (text, span): (&str, Span),
        message: String,
        words: &[&'static str],
    ) {
        let near = nearest(text, words.iter().copied()).map(str::to_owned);
        let diagnostic = self.report.error(code, span, message).allowed(words.iter().copied());
        diagnostic.suggestion = near;
    }
}

/// What to say about an unknown key at the top that looks like a job.
fn misplaced_job(section: &Section, value: &Node<'_>) -> Option<&'static str> {
    let Kind::Map(entries) = &value.kind else { return None };
    let job = entries
        .iter()
        .any(|entry| matches!(&*entry.key.text, "image" | "run" | "script" | "steps"));
    (section.path.is_empty() && job).then_some("if this is a job, indent it below `jobs:`")
}

fn rc<'t, 'a>(node: &'t Rc<Node<'a>>) -> &'t Node<'a> {
    node
}
