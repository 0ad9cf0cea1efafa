//! Several commands on one data folder: the node that is running on it carries them out.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    process::Stdio,
};

use serde_json::Value;

use crate::harness::{Node, Server, create, import, lines, objects, tail, until};

fn socket(node: &Node) -> std::path::PathBuf {
    node.data.join("control.sock")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn every_command_on_a_folder_in_use_is_carried_out_by_the_running_node() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let notes = create(&a, "notes");
    let elsewhere = create(&b, "elsewhere");
    let far = b.serve();

    let server = a.serve();
    let before = a.json(&["append", "notes", "hello"])["seq"]
        .as_u64()
        .unwrap();
    import(&a, "notes", &lines(3000, 7));
    let one = a.json(&["append", "notes", "again", "--author", "label-1"]);
    assert_eq!(one["seq"], 430);
    let next = a.json(&["append", "notes", "on"]);
    assert_eq!(next["seq"], before + 1);
    let other = create(&a, "other");
    a.json(&["append", "other", "there, too"]);
    assert_eq!(a.json(&["verify"])["sound"], true);
    a.json(&["space", "join", far.ticket(&elsewhere), "--name", "theirs"]);
    let report = a.json(&["sync", "theirs"]);
    assert_eq!(report["outcome"], "complete", "{report}");

    let status = a.json(&["status"]);
    let spaces = status["spaces"].as_array().unwrap();
    assert_eq!(spaces.len(), 3, "{status}");
    for space in spaces {
        assert_eq!(space["held"], true, "{space}");
    }
    let said = a.fails(&["append", "nowhere", "x"], 2);
    assert!(said.contains("no space here"), "{said}");
    a.fails(&["append", "notes", "x", "--kind", "3"], 3);
    a.fails(&["space", "create", "notes"], 2);

    let live: Vec<_> = [&notes, &other, &elsewhere]
        .map(|space| a.export(space))
        .into();
    assert_eq!(server.signal("TERM"), Some(0));
    let offline: Vec<_> = [&notes, &other, &elsewhere]
        .map(|space| a.export(space))
        .into();
    assert!(live == offline, "the same bytes either way");
    assert_eq!(a.json(&["verify", "notes"])["sound"], true);
}

#[test]
fn what_one_terminal_appends_another_one_tails_while_a_third_serves() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let space = create(&a, "notes");
    let server = a.serve();
    b.json(&["sync", server.ticket(&space)]);
    let (mut next, tail) = tail(&a, &["notes", "--from-start"]);
    assert_eq!(next()["kind"], 0);
    for word in ["one", "two", "three"] {
        a.json(&["append", "notes", word]);
        loop {
            let event = next();
            if event["kind"] == 16 {
                assert_eq!(event["payload"], word);
                break;
            }
        }
    }
    assert_eq!(tail.signal("INT"), Some(0));
    assert_eq!(b.json(&["sync", &space])["events"], 3);
    assert_eq!(server.signal("INT"), Some(0));
}

#[test]
fn a_tail_is_a_running_node_too() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let space = create(&a, "notes");
    let server = a.serve();
    let (mut next, tail) = tail(&b, &[server.ticket(&space)]);
    assert_eq!(next()["kind"], 0);
    b.json(&["append", &space, "from the side of the tail"]);
    while next()["payload"] != "from the side of the tail" {}
    assert_eq!(tail.signal("INT"), Some(0));
    assert!(!socket(&b).exists());
}

#[test]
fn after_the_node_was_killed_the_next_command_works() {
    let dir = tempfile::tempdir().unwrap();
    let a = Node::init(&dir, "a");
    create(&a, "notes");
    let server = a.serve();
    a.json(&["append", "notes", "one"]);
    server.signal("KILL");
    assert!(socket(&a).exists(), "left over");
    a.json(&["append", "notes", "two"]);
    let server = a.serve();
    a.json(&["append", "notes", "three"]);
    assert_eq!(server.signal("INT"), Some(0));
    assert!(!socket(&a).exists());
    let texts: Vec<_> = objects(&a.export("notes"))
        .iter()
        .filter(|event| event["kind"] == 16)
        .filter_map(|event| event["payload"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(texts, ["one", "two", "three"]);
}

#[test]
fn the_socket_is_its_owners_alone_and_gone_with_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let a = Node::init(&dir, "a");
    assert_eq!(mode(&a.data), 0o700);
    // The socket is closed to others even where the folder is not.
    fs::set_permissions(&a.data, fs::Permissions::from_mode(0o755)).unwrap();
    let server = a.serve();
    assert!(fs::metadata(socket(&a)).unwrap().file_type().is_socket());
    assert_eq!(mode(&socket(&a)), 0o600);
    for entry in fs::read_dir(&a.data).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
    assert_eq!(server.signal("TERM"), Some(0));
    assert!(!socket(&a).exists());
}

#[test]
fn a_folder_with_a_very_long_path_has_a_socket_too() {
    let dir = tempfile::tempdir().unwrap();
    let a = Node::init(&dir, &"deep/".repeat(40));
    create(&a, "notes");
    let _server = a.serve();
    a.json(&["append", "notes", "hello"]);
}

#[test]
fn a_caller_that_goes_away_ends_its_call_and_not_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let a = Node::init(&dir, "a");
    create(&a, "notes");
    import(&a, "notes", &lines(20_000, 3));
    let _server = a.serve();
    for _ in 0..3 {
        let mut export = a
            .command(&["export", "notes"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut lines = BufReader::new(export.stdout.take().unwrap());
        lines.read_line(&mut line).unwrap();
        export.kill().unwrap();
        export.wait().unwrap();
    }
    a.json(&["append", "notes", "still there"]);
    assert!(objects(&a.export("notes")).len() > 20_001);
}

#[test]
fn a_tail_whose_node_stops_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let space = create(&a, "notes");
    let far = a.serve();
    b.json(&["sync", far.ticket(&space)]);
    let server = b.serve();
    let mut tailing = b
        .command(&["tail", &space, "--from-start"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(tailing.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(server.signal("TERM"), Some(0));
    let output = tailing.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = objects(&output.stderr).pop().unwrap()["error"].to_string();
    assert!(said.contains("has stopped"), "{said}");
}

/// What `status` says of a space.
fn status_of(node: &Node, name: &str) -> Value {
    let status = node.json(&["status"]);
    let spaces = status["spaces"].as_array().unwrap();
    let found = spaces.iter().find(|space| space["name"] == name);
    found.unwrap().clone()
}

#[test]
fn a_space_that_is_only_tailed_is_served_and_live_until_its_last_tail_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    create(&a, "notes");
    create(&a, "other");
    let _server = a.serve_with(&["notes"]);
    assert!(status_of(&a, "other")["live"].is_null());
    a.fails(&["space", "ticket", "other"], 2);

    let (mut next, first) = tail(&a, &["other", "--from-start"]);
    assert_eq!(next()["kind"], 0);
    let (mut next, second) = tail(&a, &["other", "--from-start"]);
    assert_eq!(next()["kind"], 0);
    let ticket = a.json(&["space", "ticket", "other"])["ticket"].clone();
    let ticket = ticket.as_str().unwrap();
    assert_eq!(b.json(&["sync", ticket])["events"], 3);
    assert_eq!(first.signal("INT"), Some(0));
    a.json(&["append", "other", "one is left"]);
    assert_eq!(b.json(&["sync", ticket])["events"], 1);
    assert!(!status_of(&a, "other")["live"].is_null());

    assert_eq!(second.signal("INT"), Some(0));
    until("the space is left", || {
        status_of(&a, "other")["live"].is_null()
    });
    a.fails(&["space", "ticket", "other"], 2);
    let said = b.fails(&["sync", ticket], 5);
    assert!(said.contains("does not serve it"), "{said}");
    assert!(!status_of(&a, "notes")["live"].is_null());
}

#[test]
fn a_sync_gives_the_peer_what_it_lacks_whoever_carries_it_out() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    create(&a, "notes");
    let theirs = create(&b, "theirs");
    let far = b.serve_with(&["--no-gossip"]);
    a.json(&["space", "join", far.ticket(&theirs), "--name", "theirs"]);
    a.json(&["sync", "theirs"]);
    let last = || objects(&b.export("theirs")).pop().unwrap()["payload"].clone();

    a.json(&["append", "theirs", "by itself"]);
    a.json(&["sync", "theirs"]);
    assert_eq!(last(), "by itself");

    let _server = a.serve_with(&["notes"]);
    a.json(&["append", "theirs", "by the node"]);
    a.json(&["sync", "theirs"]);
    assert_eq!(last(), "by the node");
    a.fails(&["space", "ticket", "theirs"], 2);
}

#[test]
fn options_that_the_running_node_cannot_follow_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let theirs = create(&b, "theirs");
    let far = b.serve();
    let _server = a.serve();
    a.json(&["space", "join", far.ticket(&theirs), "--name", "theirs"]);

    let output = a.run(&["sync", "theirs"]);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let output = a.run(&["sync", "theirs", "--dial-timeout", "60"]);
    assert!(output.status.success(), "{output:?}");
    let warning = objects(&output.stderr)[0]["warning"].to_string();
    assert!(
        warning.contains("without effect: --dial-timeout"),
        "{warning}"
    );

    let mut tailing = a
        .command(&["tail", "theirs", "--no-gossip"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(tailing.stderr.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    tailing.kill().unwrap();
    tailing.wait().unwrap();
    assert!(line.contains("without effect: --no-gossip"), "{line}");
}

/// A `sync` that has the folder, and goes on when its peer, which is stopped, goes on.
fn begin_sync(node: &Node, peer: &Server, space: &str) -> std::process::Child {
    peer.send("STOP");
    let syncing = node
        .command(&["sync", space, "--dial-timeout", "300"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    until("the sync has the folder", || socket(node).exists());
    syncing
}

#[test]
fn while_a_sync_runs_it_carries_out_other_commands_and_a_serve_waits_for_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let theirs = create(&a, "theirs");
    create(&b, "mine");
    let far = a.serve();
    b.json(&["space", "join", far.ticket(&theirs), "--name", "theirs"]);
    let syncing = begin_sync(&b, &far, "theirs");

    b.json(&["append", "mine", "meanwhile"]);
    assert_eq!(b.json(&["status"])["running"], false);
    assert_eq!(objects(&b.export("mine")).len(), 4);
    assert_eq!(status_of(&b, "theirs")["held"], false);
    b.fails(&["space", "ticket", "mine"], 2);
    let mut serving = b
        .command(&["serve", "--bind", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    far.send("CONT");

    let output = syncing.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(objects(&output.stdout).pop().unwrap()["events"], 3);
    let mut line = String::new();
    BufReader::new(serving.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    let first: Value = serde_json::from_str(&line).unwrap();
    let child = serving;
    let server = Server { child, first };
    server.ticket(&theirs);
    assert_eq!(server.signal("INT"), Some(0));
}

#[test]
fn a_sync_that_is_done_stays_until_others_are_that_it_carries_out() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let theirs = create(&a, "theirs");
    create(&b, "mine");
    import(&b, "mine", &lines(20_000, 3));
    let far = a.serve();
    b.json(&["space", "join", far.ticket(&theirs), "--name", "theirs"]);
    let mut syncing = begin_sync(&b, &far, "theirs");
    let mut exporting = b
        .command(&["export", "mine"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut exported = BufReader::new(exporting.stdout.take().unwrap()).lines();
    exported.next().unwrap().unwrap();
    far.send("CONT");

    // The export is far from its end when the sync is done.
    let mut said = BufReader::new(syncing.stdout.take().unwrap()).lines();
    said.find(|line| line.as_ref().unwrap().contains("outcome"))
        .unwrap()
        .unwrap();
    until("the sync takes no more calls", || !socket(&b).exists());
    assert!(syncing.try_wait().unwrap().is_none());
    assert_eq!(exported.count(), 20_002);
    assert!(exporting.wait().unwrap().success());
    assert!(syncing.wait().unwrap().success());
}

#[test]
fn a_start_removes_what_a_killed_process_left_half_made() {
    let dir = tempfile::tempdir().unwrap();
    let a = Node::init(&dir, "a");
    create(&a, "notes");
    let left = a.data.join(".new-abcdef");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("s"), "").unwrap();
    let _server = a.serve();
    assert!(!left.exists());
    // While a node runs, what lies there may be somebody's.
    fs::create_dir(&left).unwrap();
    a.json(&["append", "notes", "hello"]);
    assert!(left.exists());
}
