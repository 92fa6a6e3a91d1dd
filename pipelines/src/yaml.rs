//! From text to a tree that remembers where every key and every value stood.
//!
//! Stricter than YAML: one document, keys are plain text and unique, no tags but `!!str`, `true` and
//! `false` are the only booleans. Aliases and `<<` are resolved here. They share their subtree, and
//! every node knows how large it is when written out, so a bomb is refused before it is walked.

mod blame;

use std::{borrow::Cow, collections::HashMap, rc::Rc};

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError};

use crate::{
    Code, MAX_BYTES,
    diagnostic::{Report, quote},
};

/// The deepest nesting, aliases included.
const MAX_DEPTH: u32 = 48;
/// The most values in a file once its aliases are written out.
const MAX_VALUES: u64 = 400_000;

/// A range of bytes in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A value in its place.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    pub(crate) kind: Kind<'a>,
    pub(crate) span: Span,
    /// Values in it, itself included, with aliases written out.
    size: u64,
    depth: u32,
}

#[derive(Debug)]
pub(crate) enum Kind<'a> {
    /// Nothing, `~` or `null`.
    Null,
    /// Any other scalar. `plain` when it stands without quotes.
    Text {
        text: Cow<'a, str>,
        plain: bool,
    },
    List(Vec<Rc<Node<'a>>>),
    Map(Vec<Entry<'a>>),
    /// Reported already; nothing more is said about it.
    Broken,
}

impl Kind<'_> {
    /// For "expected text, found …".
    pub(crate) fn words(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Text { .. } => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Broken => "nothing that can be read",
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Key<'a> {
    pub(crate) text: Cow<'a, str>,
    pub(crate) span: Span,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry<'a> {
    pub(crate) key: Key<'a>,
    pub(crate) value: Rc<Node<'a>>,
}

/// A list or map that isn't closed yet.
enum Open<'a> {
    List {
        start: usize,
        anchor: usize,
        items: Vec<Rc<Node<'a>>>,
    },
    Map {
        start: usize,
        anchor: usize,
        key: Option<Key<'a>>,
        entries: Vec<Entry<'a>>,
        merges: Vec<(Span, Rc<Node<'a>>)>,
    },
}

/// Parses the one document of a file. `None` when nothing could be read; the report says why.
pub(crate) fn parse<'a>(text: &'a str, report: &mut Report<'a>) -> Option<Rc<Node<'a>>> {
    let end = Span { start: 0, end: 0 };
    if text.len() > MAX_BYTES {
        report
            .error(
                Code::P004,
                end,
                format!("the file has {} bytes; at most {MAX_BYTES} are read", text.len()),
            )
            .help("split it into several files under `.pipeyard/`");
        return None;
    }
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: MAX_DEPTH as usize,
        block_nesting_limit: MAX_DEPTH as usize,
    };
    let mut tree =
        Tree { text, report, anchors: HashMap::new(), stack: Vec::new(), root: None, total: 0 };
    let mut documents = 0;
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = match next {
            Ok(next) => next,
            Err(error) => {
                tree.syntax_error(&error);
                return None;
            }
        };
        let start = span.start.byte_offset().unwrap_or(0).min(text.len());
        let end = span.end.byte_offset().unwrap_or(start).clamp(start, text.len());
        let span = Span { start, end };
        if matches!(event, Event::DocumentStart(..)) {
            documents += 1;
            if documents == 2 {
                tree.report
                    .error(
                        Code::P012,
                        span,
                        "a pipeline file holds one YAML document, and here starts a second",
                    )
                    .help("put each pipeline into a file of its own under `.pipeyard/`");
                return tree.root;
            }
        }
        tree.event(event, span).ok()?;
    }
    match tree.root {
        Some(root) if !matches!(root.kind, Kind::Null) => Some(root),
        _ => {
            report
                .error(Code::P001, end, "the file is empty")
                .help("the shortest pipeline is `jobs:`, a job's name, its `image` and its `run`");
            None
        }
    }
}

/// The report says why.
struct Stop;

struct Tree<'a, 'r> {
    text: &'a str,
    report: &'r mut Report<'a>,
    anchors: HashMap<usize, Rc<Node<'a>>>,
    stack: Vec<Open<'a>>,
    root: Option<Rc<Node<'a>>>,
    /// Values placed so far, with aliases written out.
    total: u64,
}

impl<'a> Tree<'a, '_> {
    fn event(&mut self, event: Event<'a>, span: Span) -> Result<(), Stop> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let as_text = tag.as_ref().is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                if let Some(tag) = tag.filter(|_| !as_text) {
                    self.refuse_tag(&tag.original(), span);
                }
                let plain = style == ScalarStyle::Plain && !as_text;
                let null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let kind = if null { Kind::Null } else { Kind::Text { text, plain } };
                self.place(Node { kind, span: self.tighten(span), size: 1, depth: 1 }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                if let Some(tag) = tag {
                    self.refuse_tag(&tag.original(), span);
                }
                self.stack.push(Open::List { start: span.start, anchor, items: Vec::new() });
                Ok(())
            }
            Event::MappingStart(_, anchor, tag) => {
                if let Some(tag) = tag {
                    self.refuse_tag(&tag.original(), span);
                }
                let (entries, merges) = (Vec::new(), Vec::new());
                self.stack.push(Open::Map {
                    start: span.start,
                    anchor,
                    key: None,
                    entries,
                    merges,
                });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some(node) => self.place_shared(node, span),
                None => {
                    let name = quote(self.report.slice(span));
                    self.report
                        .error(
                            Code::P011,
                            span,
                            format!("the alias {name} stands inside of what it names"),
                        )
                        .help("write the value out once, before it is used");
                    Err(Stop)
                }
            },
            Event::UnresolvedAlias(name) => {
                let name = quote(&format!("&{name}"));
                self.report
                    .error(Code::P011, span, format!("no anchor {name} stands before this alias"))
                    .help("text that starts with `*` needs quotes");
                self.place(Node { kind: Kind::Broken, span, size: 1, depth: 1 }, 0)
            }
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd => Ok(()),
            // The enum is open; nothing else is asked for in the options.
            _ => Ok(()),
        }
    }

    fn refuse_tag(&mut self, tag: &str, span: Span) {
        let tag = quote(tag);
        self.report
            .error(Code::P010, span, format!("the tag {tag} has no meaning in a pipeline"))
            .help("remove it; text that starts with `!` needs quotes");
    }

    /// Cuts the line breaks that end a block's text, so that a span ends with its last character.
    fn tighten(&self, span: Span) -> Span {
        let slice = self.text.get(span.start..span.end).unwrap_or("");
        Span { start: span.start, end: span.start + slice.trim_end().len() }
    }

    fn close(&mut self, span: Span) -> Result<(), Stop> {
        let (node, anchor) = match self.stack.pop() {
            Some(Open::List { start, anchor, items }) => {
                let (size, depth) = measure(items.iter());
                let end = items
                    .last()
                    .map_or(span.end, |item| item.span.end)
                    .max(span.end.min(start + 1));
                (Node { kind: Kind::List(items), span: Span { start, end }, size, depth }, anchor)
            }
            Some(Open::Map { start, anchor, entries, merges, .. }) => {
                let entries = self.merge(self.stack.len(), entries, merges)?;
                let (size, depth) = measure(entries.iter().map(|entry| &entry.value));
                let end = entries.last().map_or(span.end, |entry| entry.key.span.end).max(start);
                (Node { kind: Kind::Map(entries), span: Span { start, end }, size, depth }, anchor)
            }
            None => return Ok(()),
        };
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.attach(node)
    }

    /// A new value: a key, or a value that isn't a list or map.
    fn place(&mut self, node: Node<'a>, anchor: usize) -> Result<(), Stop> {
        self.count(1, node.span)?;
        if anchor == 0
            && let Some(Open::Map { key: key @ None, .. }) = self.stack.last_mut()
        {
            let text = match node.kind {
                Kind::Text { text, .. } => text,
                _ => Cow::Borrowed(self.text.get(node.span.start..node.span.end).unwrap_or("")),
            };
            *key = Some(Key { text, span: node.span });
            return Ok(());
        }
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.attach(node)
    }

    /// A value that an alias names.
    fn place_shared(&mut self, node: Rc<Node<'a>>, span: Span) -> Result<(), Stop> {
        self.count(node.size, span)?;
        if node.depth as usize + self.stack.len() > MAX_DEPTH as usize {
            return self.too_deep(span);
        }
        self.attach(node)
    }

    fn count(&mut self, values: u64, span: Span) -> Result<(), Stop> {
        self.total = self.total.saturating_add(values);
        if self.total <= MAX_VALUES {
            return Ok(());
        }
        self.report
            .error(
                Code::P006,
                span,
                format!("with its aliases written out the file has over {MAX_VALUES} values"),
            )
            .help("an alias repeats everything that it names; use fewer, or split the file");
        Err(Stop)
    }

    fn too_deep(&mut self, span: Span) -> Result<(), Stop> {
        self.report
            .error(Code::P005, span, format!("values are nested more than {MAX_DEPTH} levels deep"))
            .help("a pipeline needs about six levels");
        Err(Stop)
    }

    fn attach(&mut self, node: Rc<Node<'a>>) -> Result<(), Stop> {
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { key, entries, merges, .. }) => match key.take() {
                Some(key) if key.text == "<<" => merges.push((key.span, node)),
                Some(key) => entries.push(Entry { key, value: node }),
                None => match &node.kind {
                    // An anchored key, or an alias in its place.
                    Kind::Text { text, .. } => {
                        *key = Some(Key { text: text.clone(), span: node.span });
                    }
                    Kind::Null | Kind::Broken => {
                        *key = Some(Key { text: Cow::Borrowed(""), span: node.span });
                    }
                    Kind::List(_) | Kind::Map(_) => {
                        let message = format!("a key is text, and here is {}", node.kind.words());
                        self.report
                            .error(Code::P009, node.span, message)
                            .help("text that starts with `[`, `{`, or holds `: ` needs quotes");
                        return Err(Stop);
                    }
                },
            },
        }
        Ok(())
    }

    /// Adds what `<<` brings in, below what the map says itself; refuses keys that stand twice.
    fn merge(
        &mut self,
        depth: usize,
        mut entries: Vec<Entry<'a>>,
        merges: Vec<(Span, Rc<Node<'a>>)>,
    ) -> Result<Vec<Entry<'a>>, Stop> {
        self.refuse_doubles(&mut entries);
        if merges.is_empty() {
            return Ok(entries);
        }
        let own: Vec<Cow<'a, str>> = entries.iter().map(|entry| entry.key.text.clone()).collect();
        let mut known: std::collections::HashSet<Cow<'a, str>> = own.into_iter().collect();
        for (span, node) in merges {
            let sources = match &node.kind {
                Kind::Map(_) => vec![&node],
                Kind::List(items) => items.iter().collect(),
                Kind::Broken => continue,
                Kind::Null | Kind::Text { .. } => Vec::new(),
            };
            if sources.is_empty() || sources.iter().any(|s| !matches!(s.kind, Kind::Map(_))) {
                self.report
                    .error(Code::P016, span, "`<<` takes a map or a list of maps")
                    .help("write `<<: *name`, with `&name` at a map above");
                continue;
            }
            for source in sources {
                self.count(source.size, span)?;
                if source.depth as usize + depth > MAX_DEPTH as usize {
                    self.too_deep(span)?;
                }
                if let Kind::Map(brought) = &source.kind {
                    let new = brought.iter().filter(|entry| known.insert(entry.key.text.clone()));
                    entries.extend(new.cloned());
                }
            }
        }
        Ok(entries)
    }

    fn refuse_doubles(&mut self, entries: &mut Vec<Entry<'a>>) {
        let mut first: HashMap<&str, Span> = HashMap::new();
        let mut doubles = Vec::new();
        if entries.len() <= 8 {
            for (at, entry) in entries.iter().enumerate() {
                if let Some(other) =
                    entries[..at].iter().find(|other| other.key.text == entry.key.text)
                {
                    doubles.push((at, other.key.span));
                }
            }
        } else {
            for (at, entry) in entries.iter().enumerate() {
                match first.entry(&entry.key.text) {
                    std::collections::hash_map::Entry::Occupied(other) => {
                        doubles.push((at, *other.get()));
                    }
                    std::collections::hash_map::Entry::Vacant(free) => {
                        free.insert(entry.key.span);
                    }
                }
            }
        }
        for (at, earlier) in doubles.into_iter().rev() {
            let entry = entries.remove(at);
            let line = self.report.line_of(earlier.start);
            let message =
                format!("the key {} stands twice; first in line {line}", quote(&entry.key.text));
            self.report
                .error(Code::P007, entry.key.span, message)
                .help("remove or rename one of them");
        }
    }

    fn syntax_error(&mut self, error: &ScanError) {
        let at = error.marker().byte_offset().unwrap_or(0).min(self.text.len());
        if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
            let _ = self.too_deep(Span { start: at, end: at });
            return;
        }
        // A tab in front of a key gives many different errors; the tab is what has to go.
        let line_start = self.text[..at].rfind('\n').map_or(0, |at| at + 1);
        let before =
            self.text[..line_start].trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
        for start in [line_start, before] {
            let line = self.text[start..].lines().next().unwrap_or("");
            let indent = &line[..line.len() - line.trim_start().len()];
            if let Some(tab) = indent.find('\t') {
                let at = start + tab;
                self.report
                    .error(Code::P003, Span { start: at, end: at + 1 }, "a tab can't indent YAML")
                    .help("use two spaces for each level");
                return;
            }
        }
        let (at, message, help) = blame::blame(self.text, at, error.kind());
        let found = self.report.error(
            Code::P002,
            Span { start: at, end: at },
            format!("this is not YAML: {message}"),
        );
        if let Some(help) = help {
            found.help(help);
        }
    }
}

fn measure<'n, 'a: 'n>(children: impl Iterator<Item = &'n Rc<Node<'a>>>) -> (u64, u32) {
    children.fold((1, 1), |(size, depth), child| {
        (child.size.saturating_add(size), depth.max(child.depth + 1))
    })
}
