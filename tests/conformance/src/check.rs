//! What keeps the tables true.

use crate::outline::{OUTLINE, Outline};
use crate::{Section, Side, Test, Verdict};
use std::collections::HashMap;
use std::path::Path;

/// Everything that is wrong with the tables, in words.
///
/// * Each section of the outline is there, in its order, and nothing else; its statements are numbered from 1 without a
///   gap and are as many as the specification has.
/// * Each test is a `#[test]` that is not ignored, in the file that is named for it. `root` is the repository's.
/// * No statement is left out because of a feature that is there.
pub fn check(root: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut sources = Sources {
        root,
        files: HashMap::new(),
    };
    for side in Side::ALL {
        let outline: Vec<&Outline> = OUTLINE.iter().filter(|section| section.side == side).collect();
        let sections: Vec<&Section> = side.sections().collect();
        let numbers = |list: &[&str]| list.join(" ");
        let wanted = numbers(&outline.iter().map(|section| section.number).collect::<Vec<_>>());
        let present = numbers(&sections.iter().map(|section| section.number).collect::<Vec<_>>());
        if wanted != present {
            wrong.push(format!(
                "{side:?}: sections {present}, the specification has {wanted}"
            ));
        }
        for (section, outline) in sections.iter().zip(&outline) {
            check_section(side, section, outline, &mut sources, &mut wrong);
        }
    }
    wrong
}

fn check_section(
    side: Side,
    section: &Section,
    outline: &Outline,
    sources: &mut Sources<'_>,
    wrong: &mut Vec<String>,
) {
    let mut say = |text: String| wrong.push(format!("{side:?} {}: {text}", section.number));
    let ordinals: Vec<u8> = section.statements.iter().map(|statement| statement.0).collect();
    if ordinals != (1..=outline.statements).collect::<Vec<_>>() {
        say(format!(
            "statements {ordinals:?}, the specification has {}",
            outline.statements
        ));
    }
    for &(ordinal, says, verdict) in section.statements {
        if says.is_empty() {
            say(format!("statement {ordinal} says nothing"));
        }
        match verdict {
            Verdict::Tests([]) => say(format!("statement {ordinal} names no test")),
            Verdict::Tests(tests) => {
                for &test in tests {
                    if let Err(error) = sources.find(test) {
                        say(format!("statement {ordinal}: {error}"));
                    }
                }
            }
            Verdict::NotOffered(feature) if side.features().intersects(feature) => {
                say(format!(
                    "statement {ordinal} was left out for want of {feature:?}, which is there: name its tests"
                ));
            }
            Verdict::Not("") | Verdict::Open("") => say(format!("statement {ordinal} has no reason")),
            Verdict::NotOffered(_) | Verdict::Not(_) | Verdict::Open(_) => {}
        }
    }
}

/// Source files, each read once.
struct Sources<'a> {
    root: &'a Path,
    files: HashMap<&'static str, Result<String, String>>,
}

impl Sources<'_> {
    /// Whether `test` is a test that runs.
    fn find(&mut self, (file, name): Test) -> Result<(), String> {
        let path = self.root.join(file);
        let text = self
            .files
            .entry(file)
            .or_insert_with(|| std::fs::read_to_string(path).map_err(|error| format!("{file}: {error}")));
        attributes(text.as_ref().map_err(String::clone)?, name)
            .ok_or_else(|| format!("{file} has no function {name}"))
            .and_then(|attributes| match attributes {
                text if text.contains("#[ignore") => Err(format!("{file}: {name} is ignored")),
                text if text.contains("#[test]") => Ok(()),
                _ => Err(format!("{file}: {name} is not a test")),
            })
    }
}

/// The attributes and comments above the function `name`.
fn attributes<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let head = format!("fn {name}(");
    let at = text
        .match_indices(&head)
        .map(|(at, _)| text[..at].rfind('\n').map_or(0, |newline| newline + 1))
        .find(|&line| text[line..].trim_start().starts_with(&head))?;
    // Back to the end of whatever comes before: a line that is neither attribute nor comment.
    let mut from = at;
    for line in text[..at].lines().rev() {
        let trimmed = line.trim_start();
        if !(trimmed.starts_with('#') || trimmed.starts_with("//")) {
            break;
        }
        from -= line.len() + 1;
    }
    Some(&text[from..at])
}

#[cfg(test)]
mod tests {
    use super::attributes;

    #[test]
    fn a_test_is_known_by_its_attribute() {
        let text =
            "fn helper() {}\n\n/// Says.\n#[test]\nfn shows() {\n}\n#[ignore]\n#[test]\n    fn never() {}\n";
        assert_eq!(attributes(text, "shows"), Some("/// Says.\n#[test]\n"));
        assert_eq!(attributes(text, "never"), Some("#[ignore]\n#[test]\n"));
        assert_eq!(attributes(text, "helper"), Some(""));
        assert_eq!(attributes(text, "show"), None);
    }
}
