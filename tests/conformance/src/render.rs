//! The tables as Markdown.

use crate::outline::{COMMIT, LATER_COMMIT, LATER_TAG, OUTLINE, Outline, REVISION, TAG, WHOLE};
use crate::{Side, Verdict};
use std::fmt::Write;

/// The contents of `tests/virtio-conformance.md`.
pub fn markdown() -> String {
    let mut out = format!(
        "<!-- Written by tests/conformance: `make conformance`. -->\n\
         # Conformance to virtio 1.3\n\n\
         Every normative statement of the virtio specification that binds a network device, or its driver, with packed\n\
         virtqueues on PCI, and the test that shows it for the card or for our driver, or the reason why it does not apply.\n\n\
         The text counted is {REVISION}, tag `{TAG}` (commit `{COMMIT}`) of\n\
         [oasis-tcs/virtio-spec](https://github.com/oasis-tcs/virtio-spec); of device statistics, which came later, it is\n\
         section 5.1.9.5.11 of virtio 1.4, tag `{LATER_TAG}` (commit `{LATER_COMMIT}`). A statement is a sentence or list item with a\n\
         keyword of RFC 2119; the number before it counts them within its section. What they say is put in words of our\n\
         own: read the specification for theirs. A test checks that each test named here exists, that no statement is\n\
         missing, and that nothing is left out for want of a feature that is there.\n\n"
    );
    for side in Side::ALL {
        let count = |wanted: fn(&Verdict) -> bool| {
            let all = side.sections().flat_map(|section| section.statements);
            all.filter(|(_, _, verdict)| wanted(verdict)).count()
        };
        let _ = writeln!(
            out,
            "- {}: {} statements shown by tests, {} about features that are not {}, {} that do not apply for another reason, {} open.",
            title(side),
            count(|verdict| matches!(verdict, Verdict::Tests(_))),
            count(|verdict| matches!(verdict, Verdict::NotOffered(_))),
            participle(side),
            count(|verdict| matches!(verdict, Verdict::Not(_))),
            count(|verdict| matches!(verdict, Verdict::Open(_))),
        );
    }
    out.push_str("\nNot counted, as a whole:\n\n");
    for (what, why) in WHOLE {
        let _ = writeln!(out, "- {what}: {why}.");
    }
    for side in Side::ALL {
        let _ = write!(out, "\n## {}\n", title(side));
        for (section, outline) in side.sections().zip(OUTLINE.iter().filter(|o| o.side == side)) {
            let Outline { number, title, .. } = outline;
            let _ = write!(
                out,
                "\n### {number} {title}\n\n| | it says | shown by |\n|---|---|---|\n"
            );
            for (ordinal, says, verdict) in section.statements {
                let _ = writeln!(out, "| {ordinal} | {says} | {} |", cell(side, verdict));
            }
        }
    }
    out
}

fn title(side: Side) -> &'static str {
    match side {
        Side::Device => "The card",
        Side::Driver => "The driver",
    }
}

fn participle(side: Side) -> &'static str {
    match side {
        Side::Device => "offered",
        Side::Driver => "accepted",
    }
}

fn cell(side: Side, verdict: &Verdict) -> String {
    match verdict {
        Verdict::Tests(tests) => {
            let links = tests.iter().map(|(file, name)| format!("[`{name}`](../{file})"));
            links.collect::<Vec<_>>().join(", ")
        }
        Verdict::NotOffered(feature) => {
            let names: Vec<&str> = feature.iter_names().map(|(name, _)| name).collect();
            format!("not {}: {}", participle(side), names.join(", "))
        }
        Verdict::Not(why) => format!("— {why}"),
        Verdict::Open(why) => format!("**open**: {why}"),
    }
}
