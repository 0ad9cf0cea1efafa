//! Pages that name tests name tests that are there.

use std::{fs, path::PathBuf};

const PAGES: &[&str] = &[
    "docs/threat-model.md",
    "docs/hostile-peers.md",
    "SECURITY.md",
];

/// What a page names: a test and its file, written as a link.
fn named(page: &str) -> Vec<(String, PathBuf)> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let folder = root.join(page);
    let folder = folder.parent().expect("in a folder");
    let text = fs::read_to_string(root.join(page)).expect(page);
    let links = text.split("[`").skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once("`](")?;
        let (path, _) = rest.split_once(')')?;
        let path = folder.join(path);
        let is_source = path.extension().is_some_and(|kind| kind == "rs");
        is_source.then(|| (name.to_owned(), path))
    });
    links.collect()
}

#[test]
fn every_test_a_page_names_is_there() {
    for page in PAGES {
        for (test, path) in named(page) {
            let file = fs::read_to_string(&path).expect("a file of this repository");
            let function = format!("fn {test}(");
            assert!(file.contains(&function), "{page}: {test} in {path:?}");
        }
    }
    assert!(named("docs/threat-model.md").len() > 20);
}
