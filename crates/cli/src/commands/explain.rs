//! `explain`: what a code means and what to do. Local, no server.

use pipeyard_api::{damage, homes, test_report};
use pipeyard_executor::reasons;
use pipeyard_model::{codes, environment::reasons as rules, policy_codes};
use pipeyard_pipelines::{Code, explain};
use serde_json::json;

use crate::{
    context::Context,
    exit::{Exit, Failure, Outcome},
    output::{Column, cell},
    term,
};

/// Explain a code: of a pipeline file's findings (P204), or of why a job ended (`image_not_found`).
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// The code; lists all of them if absent.
    code: Option<String>,
}

impl Explain {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let Some(code) = self.code else {
            context.print(
                &all(),
                &[Column("CODE", |r| cell(&r["code"])), Column("ABOUT", |r| cell(&r["about"]))],
            )?;
            return Ok(Exit::Ok);
        };
        let text = page(&code).ok_or_else(|| {
            Failure::not_found(format!("there is no code {code:?}"))
                .hint("pipectl explain lists them all")
        })?;
        term::print(&text);
        Ok(Exit::Ok)
    }
}

/// The page of a code, as Markdown.
fn page(code: &str) -> Option<String> {
    if let Some(page) = explain(code) {
        return Some(page.to_owned());
    }
    let code = code.to_lowercase();
    let text = reasons::explain(&code)
        .or_else(|| rules::explain(&code))
        .or_else(|| policy_codes::explain(&code))
        .or_else(|| codes::explain(&code))
        .or_else(|| test_report::explain(&code))
        .or_else(|| homes::explain(&code))
        .or_else(|| damage::explain(&code))?;
    Some(format!("# {code}\n\n{}\n", wrap(text)))
}

/// Lines of a page.
const WIDTH: usize = 80;

fn wrap(text: &str) -> String {
    let mut wrapped = String::with_capacity(text.len() + text.len() / WIDTH + 1);
    let mut used = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > WIDTH {
            wrapped.push('\n');
            used = 0;
        } else if used > 0 {
            wrapped.push(' ');
            used += 1;
        }
        wrapped.push_str(word);
        used += length;
    }
    wrapped
}

/// Every code with its title or its first sentence.
fn all() -> Vec<serde_json::Value> {
    let language = Code::ALL.iter().map(|code| (code.to_string(), code.title().to_owned()));
    let others = reasons::ALL
        .iter()
        .chain(rules::ALL)
        .chain(policy_codes::ALL)
        .chain(codes::ALL)
        .chain(test_report::CODES)
        .chain(homes::CODES)
        .chain(damage::CODES);
    let others = others.map(|(code, text)| ((*code).to_owned(), first_sentence(text)));
    language.chain(others).map(|(code, about)| json!({ "code": code, "about": about })).collect()
}

fn first_sentence(text: &str) -> String {
    text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_that_is_listed_has_a_page() {
        let all = all();
        assert!(all.len() > 50);
        for row in &all {
            let code = row["code"].as_str().unwrap();
            let page = page(code).unwrap_or_else(|| panic!("{code} has no page"));
            assert!(page.starts_with('#') && page.contains(code), "{page}");
            assert!(!row["about"].as_str().unwrap().is_empty(), "{code}");
        }
        let lines =
            |code: &str| page(code).unwrap().lines().all(|line| line.chars().count() <= WIDTH);
        assert!(lines("report_missing") && lines("docker_unavailable"));
        assert!(page("no_such_code").is_none());
        assert!(page("IMAGE_NOT_FOUND").is_some());
    }
}
