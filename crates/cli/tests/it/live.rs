//! Live spaces: nodes that find each other on a space's gossip topic.

use serde_json::Value;

use crate::harness::{Node, create, import, lines, objects, tail, until};

/// What `status` says of the only space.
fn space_of(node: &Node) -> Value {
    node.json(&["status"])["spaces"][0].clone()
}

/// The neighbours of the only space; none while it is not live yet.
fn count_neighbors(node: &Node) -> usize {
    let live = &space_of(node)["live"];
    live["neighbors"].as_array().map_or(0, Vec::len)
}

#[test]
fn a_third_node_that_knows_only_one_other_gets_everything_and_is_heard_by_all() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = ["a", "b", "c"].map(|name| Node::init(&dir, name));
    let [a, b, c] = &nodes;
    let space = create(a, "shared");
    import(a, "shared", &lines(500, 5));
    let at_a = a.serve();

    // B was told of A, C of B alone; neither has pulled.
    b.json(&["space", "join", at_a.ticket(&space), "--name", "shared"]);
    let at_b = b.serve();
    until("B gets the history", || space_of(b)["events"] == 503);
    drop(at_b);
    let at_b = b.serve();
    c.json(&["space", "join", at_b.ticket(&space), "--name", "shared"]);
    let _at_c = c.serve();
    until("C gets the history", || space_of(c)["events"] == 503);

    let (mut next_at_a, _tail_at_a) = tail(a, &["shared"]);
    let (mut next_at_c, _tail_at_c) = tail(c, &["shared"]);
    until("C has neighbours", || count_neighbors(c) == 2);
    a.json(&["append", "shared", "from A"]);
    assert_eq!(next_at_a()["payload"], "from A");
    assert_eq!(next_at_c()["payload"], "from A");
    c.json(&["append", "shared", "from C"]);
    assert_eq!(next_at_a()["payload"], "from C");
    assert_eq!(next_at_c()["payload"], "from C");
    until("all are equal", || {
        let digests = [a, b, c].map(|node| space_of(node)["digest"].to_string());
        digests.iter().all(|digest| *digest == digests[0])
    });
    drop(at_a);

    // Without A the others go on.
    b.json(&["append", "shared", "without A"]);
    assert_eq!(next_at_c()["payload"], "without A");
}

#[test]
fn two_that_met_find_each_other_again_without_the_third_who_brought_them_together() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = ["a", "b", "c"].map(|name| Node::init(&dir, name));
    let [a, b, c] = &nodes;
    let space = create(a, "shared");
    let at_a = a.serve();
    for node in [b, c] {
        node.json(&["space", "join", at_a.ticket(&space), "--name", "shared"]);
    }
    let serve_at =
        |node: &Node, port: u16| node.serve_with(&["--bind", &format!("127.0.0.1:{port}")]);
    let ports = [free_port(), free_port()];
    let servers = [serve_at(b, ports[0]), serve_at(c, ports[1])];
    until("all are neighbours", || {
        let mut counts = nodes.iter().map(count_neighbors);
        counts.all(|count| count == 2)
    });
    until("all have the space", || {
        let mut held = nodes.iter().map(|node| space_of(node)["events"] == 3);
        held.all(|held| held)
    });
    until("B has met C", || {
        let text = std::fs::read_to_string(b.data.join("spaces.json")).unwrap();
        text.contains(c.json(&["id"])["endpoint_id"].as_str().unwrap())
    });
    drop((at_a, servers));

    let _servers = [serve_at(b, ports[0]), serve_at(c, ports[1])];
    c.json(&["append", "shared", "without A"]);
    until("B hears C", || objects(&b.export("shared")).len() == 4);
}

#[test]
fn an_owner_whom_no_ticket_told_of_anybody_syncs_with_those_it_met() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let space = create(&a, "shared");
    a.fails(&["sync", "shared"], 2);
    let at_a = a.serve();
    b.json(&["space", "join", at_a.ticket(&space), "--name", "shared"]);
    let _at_b = b.serve();
    until("B has the space", || space_of(&b)["events"] == 3);
    until("A has met B", || {
        let text = std::fs::read_to_string(a.data.join("spaces.json")).unwrap();
        text.contains(b.json(&["id"])["endpoint_id"].as_str().unwrap())
    });
    assert_eq!(at_a.signal("INT"), Some(0));
    b.json(&["append", "shared", "while A is away"]);
    assert_eq!(a.json(&["sync", "shared"])["events"], 1);
}

/// A port that is free at the moment.
fn free_port() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

#[test]
fn a_tail_joins_the_gossip_and_status_shows_what_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let space = create(&a, "notes");
    let status = a.json(&["status"]);
    assert_eq!(status["running"], false);
    assert!(status["spaces"][0]["live"].is_null());

    let server = a.serve();
    let (mut next, _tail) = tail(&b, &[server.ticket(&space)]);
    assert_eq!(next()["kind"], 0);
    assert_eq!(next()["kind"], 1);
    assert_eq!(next()["kind"], 2);
    for (node, other) in [(&a, &b), (&b, &a)] {
        let other = other.json(&["id"])["endpoint_id"].clone();
        until("a neighbour", || {
            space_of(node)["live"]["neighbors"] == Value::Array(vec![other.clone()])
        });
    }
    a.json(&["append", "notes", "hello"]);
    assert_eq!(next()["payload"], "hello");
    let status = a.json(&["status"]);
    assert_eq!(status["running"], true);
    assert_eq!(status["gossip"], true);
    let live = &status["spaces"][0]["live"];
    assert!(live["announced"].as_u64().unwrap() >= 1, "{live}");
    until("nothing is left to do", || {
        let live = &space_of(&b)["live"];
        live["missing_heads"] == 0 && live["pulling_from"] == Value::Array(Vec::new())
    });
}

#[test]
fn without_gossip_a_tail_follows_the_peer_of_its_ticket() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let space = create(&a, "notes");
    let server = a.serve_with(&["--no-gossip"]);
    let (mut next, _tail) = tail(&b, &[server.ticket(&space), "--no-gossip"]);
    assert_eq!(next()["kind"], 0);
    assert_eq!(next()["kind"], 1);
    assert_eq!(next()["kind"], 2);
    a.json(&["append", "notes", "hello"]);
    assert_eq!(next()["payload"], "hello");
    for node in [&a, &b] {
        let status = node.json(&["status"]);
        assert_eq!(status["running"], true);
        assert_eq!(status["gossip"], false);
        assert!(status["spaces"][0]["live"].is_null());
    }
}

#[test]
fn a_tail_with_gossip_follows_a_peer_that_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let space = create(&a, "notes");
    let server = a.serve_with(&["--no-gossip"]);
    let (mut next, _tail) = tail(&b, &[server.ticket(&space)]);
    assert_eq!(next()["kind"], 0);
    assert_eq!(next()["kind"], 1);
    assert_eq!(next()["kind"], 2);
    a.json(&["append", "notes", "hello"]);
    assert_eq!(next()["payload"], "hello");
}

#[test]
fn a_space_created_or_joined_while_the_node_runs_goes_live_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::init(&dir, "a"), Node::init(&dir, "b"));
    let _at_a = a.serve();
    let _at_b = b.serve();
    create(&a, "late");
    let ticket = a.json(&["space", "ticket", "late"])["ticket"].clone();
    b.json(&["space", "join", ticket.as_str().unwrap(), "--name", "late"]);
    until("B gets the space", || space_of(&b)["events"] == 3);
    b.json(&["append", "late", "and back"]);
    until("A hears B", || {
        objects(&a.export("late")).pop().unwrap()["payload"] == "and back"
    });
}
