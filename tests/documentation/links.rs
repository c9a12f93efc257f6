//! Links of the pages lead to files that are there, and to headings in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::root;

/// Every page of the repository, those of charts, clients and examples as well.
fn pages() -> Vec<PathBuf> {
    let git = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .arg("*.md")
        .current_dir(root())
        .output()
        .expect("git is there");
    assert!(git.status.success(), "this is a checkout: {git:?}");
    let names = String::from_utf8(git.stdout).unwrap();
    let pages = names.lines().map(|name| root().join(name));
    pages.filter(|page| page.exists()).collect()
}

/// What is written in brackets behind the brackets of a link's words.
fn links(text: &str) -> Vec<&str> {
    let parts = text.split("](").skip(1);
    let links = parts.filter_map(|rest| rest.split_once(')').map(|(link, _)| link));
    links.filter(|link| !link.contains(' ')).collect()
}

/// The name by which a heading is reached: its words without marks, joined by dashes.
fn anchor(heading: &str) -> String {
    let mut words = String::new();
    let mut rest = heading;
    // Of a link its words count.
    while let Some((before, behind)) = rest.split_once("](") {
        words += before;
        rest = behind.split_once(')').map_or("", |(_, behind)| behind);
    }
    words += rest;
    let kept = words.trim().chars().filter_map(|one| match one {
        ' ' => Some('-'),
        one if one.is_alphanumeric() || one == '-' || one == '_' => Some(one),
        _ => None,
    });
    kept.flat_map(char::to_lowercase).collect()
}

fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

/// Why a link of a page leads nowhere.
fn broken(page: &Path, text: &str, link: &str) -> Option<String> {
    if link.starts_with("https://") || link.starts_with("http://") {
        return None;
    }
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = page.parent().unwrap().join(file);
    let target_text = if file.is_empty() {
        text.to_owned()
    } else if target.is_dir() && heading.is_empty() {
        return None;
    } else {
        match fs::read_to_string(&target) {
            Ok(text) => text,
            Err(error) => return Some(format!("{link}: {error}")),
        }
    };
    let leads = heading.is_empty() || anchors(&target_text).iter().any(|one| one == heading);
    (!leads).then(|| format!("{link}: there is no such heading"))
}

#[test]
fn every_link_of_a_page_leads_to_a_file_and_a_heading_that_are_there() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            seen += 1;
            if let Some(why) = broken(&page, &text, link) {
                wrong.push(format!("{}: {why}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(seen > 100, "{seen}");
}

#[test]
fn a_link_to_nowhere_is_found() {
    let page = root().join("docs/page.md");
    let text = "# Here\n[a](#here) [b](sre.md) [c](../README.md#use-it)";
    for link in links(text) {
        assert_eq!(broken(&page, text, link), None);
    }
    for link in ["#there", "sres.md", "../README.md#abuse-it", "../docs#here"] {
        assert!(broken(&page, text, link).is_some(), "{link}");
    }
}
