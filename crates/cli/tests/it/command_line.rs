//! The command as a script sees it: exit codes, JSON lines, two processes on one machine.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::harness::{Node, Server, create, import, lines, objects};

#[test]
fn a_space_travels_whole_and_a_second_sync_costs_one_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let space = create(&a, "notes");
    import(&a, "notes", &lines(3000, 7));
    let one = a.json(&["append", "notes", "hello", "--channel", "c", "--kind", "40"]);
    assert_eq!(
        one["seq"], 4,
        "after the genesis event, the topic's secret and the grant to anyone"
    );

    let server = a.serve();
    assert_eq!(
        server.first["endpoint_id"].as_str().unwrap().len(),
        64,
        "an endpoint id in hex"
    );
    let joined = b.json(&["space", "join", server.ticket(&space), "--name", "theirs"]);
    assert_eq!(joined["space"], space.as_str());

    let report = b.json(&["sync", &space]);
    assert_eq!(report["outcome"], "complete", "{report}");
    assert_eq!(report["events"], 3004);
    let again = b.json(&["sync", "theirs"]);
    assert_eq!(again["events"], 0);
    assert_eq!(again["round_trips"], 1);
    assert_eq!(again["first_digest_equal"], true);
    assert_eq!(server.signal("TERM"), Some(0));

    let exported = a.export("notes");
    assert_eq!(exported, b.export(&space));
    let records = objects(&exported);
    assert_eq!(records.len(), 3004);
    assert_eq!(records[0]["kind"], 0, "the owner's log comes first");
    assert_eq!(records[1]["kind"], 1, "the topic's secret");
    assert_eq!(
        records[2]["kind"], 2,
        "whoever knows the id reads and writes"
    );
    assert_eq!(records[3]["payload"], "hello");
    assert_eq!(records[3]["channel"], "c");
    assert_eq!(records[3]["kind"], 40);
    let authors: Vec<_> = records[4..]
        .iter()
        .map(|record| record["author"].to_string())
        .collect();
    assert!(authors.is_sorted());
    assert!(!String::from_utf8(exported).unwrap().contains("label-"));

    for node in [&a, &b] {
        let verified = node.json(&["verify"]);
        assert_eq!(verified["sound"], true);
        assert_eq!(verified["events"], 3004);
    }
    let status = b.json(&["status"]);
    assert_eq!(status["spaces"][0]["events"], 3004);
    assert_eq!(status["spaces"][0]["name"], "theirs");
}

#[test]
fn a_bad_line_is_named_and_nothing_of_the_call_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let a = Node::init(&dir, "a");
    create(&a, "notes");
    import(&a, "notes", &lines(5, 2));
    let before = a.export("notes");
    for (bad, said) in [
        ("{\"author\":\"x\",\"payload\":", "line 4"),
        ("{\"payload\":\"x\",\"kind\":3}", "kind 3 is refused"),
        ("{\"payload\":\"x\",\"channle\":\"c\"}", "channle"),
    ] {
        let text = format!("{}{bad}\n{}", lines(3, 2), lines(3, 2));
        let output = a.feed(&["append", "notes", "--json-lines", "-"], &text);
        assert_eq!(output.status.code(), Some(3));
        assert!(output.stdout.is_empty());
        let error = objects(&output.stderr).pop().unwrap()["error"].to_string();
        assert!(error.contains("line 4") && error.contains(said), "{error}");
        assert_eq!(a.export("notes"), before);
    }
}

#[test]
fn two_nodes_pull_from_each_other_and_a_third_gets_both() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = ["a", "b", "c"].map(|name| Node::init(&dir, name));
    let [a, b, c] = &nodes;
    let space = create(a, "shared");
    import(a, &space, &lines(200, 3));
    let ticket = {
        let server = a.serve();
        b.json(&["sync", server.ticket(&space)]);
        server.ticket(&space).to_owned()
    };
    assert!(ticket.starts_with("headwater"));
    import(a, &space, &lines(50, 3));
    import(b, &space, &lines(300, 4));

    let server_a = a.serve();
    c.json(&["sync", server_a.ticket(&space)]);
    assert_eq!(server_a.signal("INT"), Some(0));
    let server_b = b.serve();
    let report = a.json(&["sync", server_b.ticket(&space)]);
    assert_eq!(report["outcome"], "complete", "{report}");
    c.json(&["sync", server_b.ticket(&space)]);
    drop(server_b);
    let server_a = a.serve();
    b.json(&["sync", server_a.ticket(&space)]);
    drop(server_a);

    assert_eq!(objects(&a.export(&space)).len(), 3 + 250 + 300);
    assert_eq!(a.export(&space), b.export(&space));
    assert_eq!(a.export(&space), c.export(&space));
}

#[test]
fn a_puller_that_is_killed_again_and_again_loses_nothing_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let space = create(&a, "long");
    import(&a, &space, &lines(100_000, 20));
    let server = a.serve();
    b.json(&["space", "join", server.ticket(&space)]);
    let mut before = 0;
    for _ in 0..5 {
        let mut pull = b
            .command(&["sync", &space])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(pull.stdout.take().unwrap()).lines();
        let applied = |line: &str| {
            let value: Value = serde_json::from_str(line).unwrap();
            value["progress"]["applied_events"].as_u64().unwrap_or(0)
        };
        let reported = said
            .by_ref()
            .map(|line| applied(&line.unwrap()))
            .find(|applied| *applied > 0);
        pull.kill().unwrap();
        pull.wait().unwrap();
        let held = b.json(&["status"])["spaces"][0]["events"]
            .as_u64()
            .unwrap_or(0);
        assert!(
            held >= before + reported.unwrap_or(0),
            "{held} {before} {reported:?}"
        );
        before = held;
    }
    let report = b.json(&["sync", &space]);
    assert_eq!(report["outcome"], "complete", "{report}");
    assert_eq!(report["events"], 100_003 - before);
    drop(server);
    assert!(a.export(&space) == b.export(&space));
    assert_eq!(b.json(&["verify"])["sound"], true);
}

#[test]
fn a_flipped_bit_on_disk_is_found_and_never_exported() {
    let dir = tempfile::tempdir().unwrap();
    let a = Node::init(&dir, "a");
    create(&a, "notes");
    import(&a, "notes", &lines(3000, 1));
    let store = a.data.join("store.redb");
    let whole = std::fs::read(&store).unwrap();
    let marker = b"event 2000";
    let at = whole
        .windows(marker.len())
        .position(|bytes| bytes == marker)
        .unwrap();
    let mut damaged = whole.clone();
    damaged[at] ^= 1;
    std::fs::write(&store, &damaged).unwrap();
    let output = a.run(&["verify"]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let report = objects(&output.stdout).pop().unwrap();
    assert_eq!(report["sound"], false);
    assert_eq!(report["fault_count"], 1);
    let output = a.run(&["export", "notes"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(objects(&output.stdout).len() < 2001);

    for other in [b"no store".to_vec(), Vec::new()] {
        std::fs::write(&store, &other).unwrap();
        a.fails(&["verify"], 1);
        assert_eq!(std::fs::read(&store).unwrap(), other, "left as it is");
    }
    std::fs::remove_file(&store).unwrap();
    assert!(a.fails(&["append", "notes", "x"], 1).contains("gone"));
    assert!(!store.exists());
    std::fs::write(&store, &whole).unwrap();
    assert_eq!(a.json(&["verify"])["sound"], true);
}

#[test]
fn a_damaged_space_is_named_while_the_others_are_checked_and_served() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let spaces = ["one", "two", "three"].map(|name| create(&a, name));
    for name in ["one", "two", "three"] {
        import(&a, name, &lines(30, 3));
    }
    // Only a space's record has its digest.
    let status = a.json(&["status"]);
    let held = status["spaces"].as_array().unwrap();
    let two = held.iter().find(|space| space["name"] == "two").unwrap();
    let digest: Vec<u8> = {
        let hex = two["digest"].as_str().unwrap();
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    };
    let store = a.data.join("store.redb");
    let mut bytes = std::fs::read(&store).unwrap();
    let found = bytes.windows(32).enumerate();
    let places: Vec<_> = found
        .filter_map(|(at, found)| (found == digest).then_some(at))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at] ^= 1;
    }
    std::fs::write(&store, &bytes).unwrap();

    let output = a.run(&["verify"]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let reports = objects(&output.stdout);
    assert_eq!(reports.len(), 3);
    for report in &reports {
        assert_eq!(report["sound"], report["name"] != "two", "{report}");
    }
    let output = a.run(&["verify", "two"]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let report = objects(&output.stdout).pop().unwrap();
    assert_eq!(report["fault_count"], 1, "{report}");
    assert_eq!(a.json(&["verify", "one"])["sound"], true);

    let status = a.json(&["status"]);
    for space in status["spaces"].as_array().unwrap() {
        let damaged = space["name"] == "two";
        assert_eq!(space["held"], true);
        assert_eq!(space["damaged"].is_string(), damaged, "{space}");
        assert_eq!(space["events"].is_u64(), !damaged, "{space}");
    }
    let server = a.serve();
    assert!(server.first["damaged"][&spaces[1]].is_string());
    assert!(server.first["tickets"][&spaces[1]].is_null());
    for space in [&spaces[0], &spaces[2]] {
        assert_eq!(b.json(&["sync", server.ticket(space)])["events"], 33);
    }
}

#[test]
fn init_says_what_it_added_to_a_folder_that_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let a = Node::init(&dir, "a");
    assert_eq!(a.json(&["init"])["author_created"], false);
    let said = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
        let output = command.arg("--data").arg(&a.data).arg("init").output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    assert!(said().contains("nothing was changed"), "{}", said());
    std::fs::remove_file(a.data.join("authors.json")).unwrap();
    let text = said();
    assert!(text.contains("made the key of author"), "{text}");
    let id = a.json(&["id"])["authors"]["me"].clone();
    assert!(text.contains(id.as_str().unwrap()), "{text}");
}

#[test]
fn every_failure_has_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = Node {
        data: dir.path().join("nowhere"),
    };
    let said = nowhere.fails(&["status"], 2);
    assert!(said.contains("headwater --data") && said.contains(" init"));
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let space = create(&a, "notes");
    assert!(a.fails(&["space", "create", "notes"], 2).contains("exists"));
    a.fails(&["export", "other"], 2);
    a.fails(&["space", "join", "headwaternonsense"], 2);
    a.fails(&["append", "notes", "x", "--kind", "15"], 3);
    b.fails(&["export", &space], 2);
    b.fails(&["sync", &space], 2);
    a.fails(&["append", "notes", "--json-lines", "/no/such/file"], 1);

    let server = a.serve();
    let said = a.fails(&["serve"], 4);
    assert!(said.contains("in use"), "{said}");
    let ticket = server.ticket(&space).to_owned();
    drop(server);
    let said = b.fails(&["sync", &ticket, "--dial-timeout", "1"], 5);
    assert!(said.starts_with("sync with"), "{said}");

    let usage = a.run(&["append", "notes"]);
    assert_eq!(usage.status.code(), Some(2));
    assert!(usage.stdout.is_empty());
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let a = Node::init(&dir, "a");
    create(&a, "notes");
    import(&a, "notes", &lines(20_000, 3));
    let mut child = a
        .command(&["export", "notes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn bytes_that_are_no_text_survive_import_and_export() {
    let dir = tempfile::tempdir().unwrap();
    let a = Node::init(&dir, "a");
    create(&a, "raw");
    import(
        &a,
        "raw",
        "{\"author\":\"x\",\"payload_hex\":\"00ff\",\"channel_hex\":\"fe\"}\n",
    );
    let record = objects(&a.export("raw")).pop().unwrap();
    assert_eq!(record["payload_hex"], "00ff");
    assert_eq!(record["channel_hex"], "fe");
    assert_eq!(record["kind"], 16);
    assert!(record["timestamp_ms"].as_u64().unwrap() > 1_600_000_000_000);
}

#[test]
fn served_lines_reach_a_tail_as_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let space = create(&a, "log");
    let mut serving = a
        .command(&["serve", "--bind", "127.0.0.1:0", "--append-lines", "log"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = serving.stdin.take().unwrap();
    let mut line = String::new();
    BufReader::new(serving.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    let first: Value = serde_json::from_str(&line).unwrap();
    let server = Server {
        child: serving,
        first,
    };
    let mut tailing = b
        .command(&["tail", server.ticket(&space)])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut events = BufReader::new(tailing.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&events.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["kind"], 0, "the history first");
    assert_eq!(next()["kind"], 1);
    assert_eq!(next()["kind"], 2);
    for number in 0..3 {
        writeln!(input, "line {number}").unwrap();
        assert_eq!(next()["payload"], format!("line {number}"));
    }
    let tail = Server {
        child: tailing,
        first: Value::Null,
    };
    assert_eq!(tail.signal("INT"), Some(0));
    assert_eq!(server.signal("INT"), Some(0));
    assert_eq!(a.export("log"), b.export(&space));
}

#[test]
fn served_lines_are_kept_byte_for_byte_and_a_bad_one_is_named_and_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let a = Node::init(&dir, "a");
    let space = create(&a, "log");
    let mut serving = a
        .command(&["serve", "--bind", "127.0.0.1:0", "--append-lines", "log"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    let mut said = BufReader::new(serving.stdout.take().unwrap());
    said.read_line(&mut first).unwrap();
    let mut warnings = BufReader::new(serving.stderr.take().unwrap());
    let first = serde_json::from_str::<Value>(&first).unwrap();
    let mut input = serving.stdin.take().unwrap();
    let server = Server {
        child: serving,
        first,
    };
    let b = Node::init(&dir, "b");
    let mut tailing = b
        .command(&["tail", server.ticket(&space)])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut events = BufReader::new(tailing.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&events.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["kind"], 0);
    assert_eq!(next()["kind"], 1);
    assert_eq!(next()["kind"], 2);

    let mut lines = b"good\n\xff\xfe line\n".to_vec();
    lines.extend(vec![b'x'; (1 << 20) + 1]);
    lines.extend(b"\n after\r\n\nlast");
    input.write_all(&lines).unwrap();
    drop(input);
    assert_eq!(next()["payload"], "good");
    assert_eq!(next()["payload_hex"], "fffe206c696e65");
    assert_eq!(next()["payload"], " after");
    assert_eq!(next()["payload"], "");
    assert_eq!(next()["payload"], "last");
    let mut warning = String::new();
    warnings.read_line(&mut warning).unwrap();
    let warning = objects(warning.as_bytes()).pop().unwrap()["warning"].to_string();
    assert!(
        warning.contains("line 3") && warning.contains("left out"),
        "{warning}"
    );
    let tail = Server {
        child: tailing,
        first: Value::Null,
    };
    assert_eq!(tail.signal("INT"), Some(0));
    assert_eq!(server.signal("INT"), Some(0), "it goes on serving");
    assert_eq!(objects(&a.export("log")).len(), 8);
    assert_eq!(a.export("log"), b.export(&space));
}

#[test]
fn the_demo_ends_with_equal_exports() {
    let dir = tempfile::tempdir().unwrap();
    let demo = |words: &[&str], inside: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_headwater"))
            .args(["demo", "--json"])
            .args(words)
            .current_dir(inside)
            .env_remove("GIT_DIR")
            .env("GIT_CEILING_DIRECTORIES", inside)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let steps = objects(&output.stdout);
        let step =
            |name: &str| steps.iter().find(|step| step["step"] == name).unwrap()["fact"].clone();
        assert_eq!(step("again")["round_trips"], 1);
        assert_eq!(step("equal")["exports_equal"], true);
        step("import")["events"].as_u64().unwrap()
    };
    assert_eq!(demo(&["--events", "1500"], dir.path()), 1500);
    let input = dir.path().join("in.jsonl");
    std::fs::write(&input, lines(40, 4)).unwrap();
    assert_eq!(demo(&["--input", "in.jsonl"], dir.path()), 40);
}
