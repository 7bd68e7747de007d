//! The agreement of the reader, the example and the reference page.

use std::collections::BTreeSet;

use super::trunk::TRUNK_HEADERS;
use super::*;
use crate::config::raw::SECTIONS;

#[test]
fn the_defaults_in_the_reference_are_the_defaults() {
    let value = |default: &str| match default.parse::<u32>().is_ok() || default.parse::<bool>().is_ok() {
        true => default.to_owned(),
        false => format!("\"{default}\""),
    };
    let mut text = String::new();
    for section in SECTIONS {
        if section.header == "[[listener]]" {
            text.push_str(&listener(""));
        } else if section.header == "[listener.timeouts]"
            || section.header == "[listener.messages]"
            || section.header.starts_with("[listener.framing")
            || TRUNK_HEADERS.contains(&section.header)
        {
            // The header's timeout goes with accept_proxy only; it's compared below, as is what a trunk needs. What goes with `framing`
            // has a test of its own.
            continue;
        } else {
            text.push_str(&format!("{}\n", section.header));
        }
        for key in section.keys.iter().filter(|key| !key.default.is_empty()) {
            // `name` would be a second default of its own.
            text.push_str(&format!("{} = {}\n", key.name, value(key.default)));
        }
    }
    let config = read(&text).unwrap();
    let least = read(&listener("")).unwrap();
    let health = Some(HealthCheck::default());
    assert_eq!(config.listeners, [Listener { health, ..least.listeners[0].clone() }]);
    let known = Config { listeners: config.listeners.clone(), log_level: Some(Level::Info), ..least };
    assert_eq!(config, known);
    let section = SECTIONS.iter().find(|section| section.header == "[listener.timeouts]").unwrap();
    let keys: String =
        section.keys.iter().map(|key| format!("timeouts.{} = \"{}\"\n", key.name, key.default)).collect();
    let config = read(&listener(&format!("accept_proxy = \"any\"\n{keys}"))).unwrap();
    assert_eq!(config.listeners[0].timeouts, Timeouts::default());
}

fn project_file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_reference_page_has_every_key_as_the_table_says_it() {
    let page = project_file("docs/configuration.md");
    let lines: BTreeSet<&str> = page.lines().collect();
    let missing: Vec<_> = reference().lines().filter(|line| !lines.contains(line)).map(str::to_owned).collect();
    assert!(missing.is_empty(), "docs/configuration.md lacks what `midmile keys` prints:\n{}", missing.join("\n"));
    let rows = |text: &str| text.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows(&page), rows(&reference()), "docs/configuration.md has keys that are no more");
}

#[test]
fn the_example_is_right_and_shows_every_key() {
    let text = project_file("packaging/midmile.example.toml");
    if let Err(mistakes) = parse("midmile.example.toml", &text, &Host { cpus: 64, congestion: None }) {
        panic!("{}", mistakes.join("\n"));
    }
    for section in SECTIONS {
        assert!(text.contains(section.header), "{} isn't in the example", section.header);
        for key in section.keys.iter().filter(|key| key.kind != "a table") {
            assert!(
                text.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{} = ", key.name))),
                "{key:?}"
            );
        }
    }
}
