//! Who may do what in a space, as the command line says and shows it.

use crate::harness::{Node, create, objects, until};

fn events(node: &Node, space: &str) -> usize {
    objects(&node.export(space)).len()
}

#[test]
fn an_invitation_lets_one_node_into_a_closed_space_to_read_and_write() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| Node::init(&dir, name));
    a.json(&["space", "create", "notes", "--closed"]);
    a.json(&["append", "notes", "hello"]);
    let server = a.serve();
    let plain = a.json(&["space", "ticket", "notes"])["ticket"].clone();
    b.fails(&["sync", plain.as_str().unwrap()], 5);

    let invited = a.json(&["space", "invite", "notes"]);
    let ticket = invited["ticket"].as_str().unwrap();
    for node in [&b, &c] {
        node.json(&["space", "join", ticket, "--name", "notes"]);
    }
    assert_eq!(b.json(&["sync", "notes"])["outcome"], "complete");
    b.json(&["append", "notes", "from b"]);
    b.json(&["sync", "notes"]);
    assert_eq!(a.export("notes"), b.export("notes"));
    c.fails(&["sync", "notes"], 5);

    let members = a.json(&["space", "members", "notes"]);
    let roles: Vec<_> = members["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member["roles"].as_str().unwrap().to_owned())
        .collect();
    let mut sorted = roles;
    sorted.sort();
    assert_eq!(sorted, ["read", "read+provide", "write"]);
    assert_eq!(members["anyone"], "nothing");
    assert_eq!(server.signal("INT"), Some(0));
}

#[test]
fn a_revoked_writer_is_cut_off_and_a_granted_one_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let space = create(&a, "notes");
    let server = a.serve();
    b.json(&["sync", server.ticket(&space)]);
    b.json(&["append", &space, "one"]);
    b.json(&["sync", &space]);
    let all = events(&a, "notes");
    let author = b.json(&["id"])["authors"]["me"].clone();
    let author = author.as_str().unwrap();

    a.json(&["space", "revoke", "notes", author, "write"]);
    b.json(&["sync", &space]);
    let refused = b.fails(&["append", &space, "two"], 1);
    assert!(
        refused.contains("accepted") && refused.contains("space grant"),
        "{refused}"
    );
    let members = b.json(&["space", "members", &space]);
    assert_eq!(members["members"][0]["last_accepted"], 1);
    a.json(&["space", "grant", "notes", author, "write"]);
    b.json(&["sync", &space]);
    b.json(&["append", &space, "two"]);
    b.json(&["sync", &space]);
    assert_eq!(events(&a, "notes"), all + 3);

    let refused = b.fails(&["space", "grant", &space, "anyone", "read"], 2);
    assert!(refused.contains("owner"), "{refused}");
    a.fails(&["space", "grant", "notes", "b", "read"], 2);
}

/// The warnings that a command gives that ends with this code.
fn warned(node: &Node, words: &[&str], code: i32) -> Vec<String> {
    let output = node.run(words);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let lines = objects(&output.stderr);
    lines
        .iter()
        .filter_map(|line| Some(line["warning"].as_str()?.to_owned()))
        .collect()
}

#[test]
fn an_invite_that_is_refused_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| Node::init(&dir, name));
    a.json(&["space", "create", "notes", "--closed"]);
    let _server = a.serve();
    let invite = || a.json(&["space", "invite", "notes"]);

    let used = invite();
    for node in [&b, &c] {
        let ticket = used["ticket"].as_str().unwrap();
        node.json(&["space", "join", ticket, "--name", "notes"]);
    }
    b.json(&["sync", "notes"]);
    let said = warned(&c, &["sync", "notes"], 5);
    assert!(said[0].contains("used") && said[0].contains("a new one"));
    assert_eq!(
        warned(&c, &["sync", "notes"], 5),
        [""; 0],
        "it is forgotten"
    );

    // Its key stands beside the ticket, and cancels it.
    let cancelled = invite();
    let key = cancelled["key"].as_str().unwrap();
    a.json(&["space", "revoke", "notes", key, "read+write"]);
    let ticket = cancelled["ticket"].as_str().unwrap();
    let said = warned(&c, &["sync", ticket], 5);
    assert!(said[0].contains("cancelled"), "{said:?}");
    let good = invite();
    let ticket = good["ticket"].as_str().unwrap();
    assert_eq!(c.json(&["sync", ticket])["outcome"], "complete");

    // Nor is it silent where the space is held, and something else was to be granted.
    let ticket = used["ticket"].as_str().unwrap();
    let said = warned(&c, &["sync", ticket], 0);
    assert!(said[0].contains("(read+write)"), "{said:?}");
    assert_eq!(warned(&c, &["sync", "notes"], 0), [""; 0]);
    let never = a.run(&["space", "invite", "notes", "--hours", "0"]);
    assert_eq!(never.status.code(), Some(2));
}

#[test]
fn a_node_that_serves_uses_the_invite_it_was_given_before() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    a.json(&["space", "create", "notes", "--closed"]);
    a.json(&["append", "notes", "hello"]);
    let _server = a.serve();
    let invited = a.json(&["space", "invite", "notes"]);
    let ticket = invited["ticket"].as_str().unwrap();
    b.json(&["space", "join", ticket, "--name", "notes"]);
    let _other = b.serve();
    until("the space comes to whoever serves it", || {
        let output = b.run(&["export", "notes"]);
        output.status.success() && output.stdout == a.export("notes")
    });
}

#[test]
fn the_owner_alone_changes_a_topics_secret_and_the_running_node_moves() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let space = create(&a, "notes");
    a.json(&["space", "rotate-secret", "notes"]);
    let server = a.serve();
    b.json(&["sync", server.ticket(&space)]);
    b.fails(&["space", "rotate-secret", &space], 2);
    let _other = b.serve();
    let old = a.json(&["space", "ticket", "notes"])["ticket"].clone();
    let changed = a.json(&["space", "rotate-secret", "notes"]);
    assert_eq!(changed["space"], space.as_str());
    assert_ne!(a.json(&["space", "ticket", "notes"])["ticket"], old);
    until(
        "the other one hears of it, and of what comes on the new topic",
        || {
            a.json(&["append", "notes", "more"]);
            a.export("notes") == b.export(&space)
        },
    );
}

#[test]
fn a_log_written_on_in_a_copy_forks_and_status_and_verify_say_so_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let space = create(&a, "notes");
    a.json(&["append", "notes", "--author", "x", "shared"]);
    let server = a.serve();
    b.json(&["sync", server.ticket(&space)]);
    // One key on two devices.
    std::fs::copy(a.data.join("authors.json"), b.data.join("authors.json")).unwrap();
    a.json(&["append", "notes", "--author", "x", "at a"]);
    b.json(&["append", &space, "--author", "x", "at b"]);
    a.json(&["append", "notes", "another log"]);

    let report = b.json(&["sync", &space]);
    assert_eq!(report["outcome"], "complete");
    assert_eq!(report["forks"][0]["repaired"], true);
    for node in [&a, &b] {
        let forks = node.json(&["status"])["spaces"][0]["forks"].clone();
        assert_eq!(forks[0]["seq"], 2, "{forks}");
        let verified = node.json(&["verify", &space]);
        assert_eq!(
            (&verified["sound"], &verified["fork_count"]),
            (&true.into(), &1.into())
        );
    }
    assert_eq!(a.export("notes"), b.export(&space));
    let refused = b.fails(&["append", &space, "--author", "x", "on"], 1);
    assert!(refused.contains("fork"), "{refused}");
}
