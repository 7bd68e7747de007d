use super::*;

const SMALL: &str = r#"
title = "two near hosts"
hosts = ["client", "gateway", "server"]
link = [{ delay = "1ms", rate = "100Mbit" }, { delay = "2ms", rate = "10Mbit", to_client = { loss = 0.5, delay = "3ms" } }]
direct = { delay = "10ms" }
object = [{ name = "small", bytes = "10kB", repetitions = 1 }]
"#;

#[test]
fn every_built_in_scenario_is_sound() {
    for (name, title) in Scenario::list() {
        let scenario = Scenario::load(name).unwrap();
        assert_eq!((scenario.name.as_str(), scenario.gateways()), (name, 2));
        assert!(!title.is_empty() && Step::ALL.into_iter().all(|step| step.fits(&scenario)));
    }
}

#[test]
fn pathway_is_the_path_of_the_talk() {
    let scenario = Scenario::load("pathway").unwrap();
    let round_trips: Vec<_> = scenario.links.iter().map(Span::round_trip).collect();
    assert_eq!(round_trips, [28_400, 218_000, 28_000].map(Duration::from_micros));
    assert_eq!(scenario.direct.round_trip(), Duration::from_millis(274));
    let limit = |bytes, fast_open| scenario.limit(bytes, fast_open).as_millis();
    assert_eq!((limit(1, false), limit(1, true), limit(50_000_000, false)), (302, 274, 1102));
}

#[test]
fn one_way_differs_where_it_says_so() {
    let scenario = Scenario::parse("small", SMALL).unwrap();
    let span = scenario.links[1];
    assert_eq!((span.to_server.delay, span.to_client.delay), (Duration::from_millis(2), Duration::from_millis(3)));
    assert_eq!((span.to_server.loss, span.to_client.loss), (0.0, 0.5));
    assert_eq!(span.to_client.rate, Rate::new(10_000_000));
    // Handshake 2 ms, path 7 ms, 10 kB at 10 Mbit/s; directly it would be 40 ms.
    assert_eq!(scenario.limit(10_000, false), Duration::from_millis(17));
    assert!(!Step::Pool.fits(&scenario) && Step::EarlyDial.fits(&scenario));
}

#[test]
fn mistakes_are_said_with_their_place() {
    for (from, to, said) in [
        ("direct = { delay", "direct = { dealy", "line 5: unknown field `dealy`"),
        ("\"10ms\"", "\"10 hours\"", "line 5: \"10 hours\" is no duration"),
        ("\"100Mbit\"", "100", "line 4: "),
        ("loss = 0.5", "loss = 5", "write a share of the packets"),
        ("rate = \"100Mbit\"", "queue = \"1MiB\"", "queue without rate"),
        ("rate = \"100Mbit\"", "rate = \"1Mbit\", queue = \"100B\"", "write 1500B or more"),
        ("\"gateway\", ", "", "name a client, 1 to 6 gateways and a server"),
        ("\"gateway\"", "\"client\"", "stands there twice"),
        ("\"gateway\"", "\"../x\"", "write 1 to 32 of a-z"),
        ("\"gateway\"", "\"a\", \"b\"", "2 [[link]] for 4 hosts; write 3"),
        ("repetitions = 1", "repetitions = 0", "write 1 to 1000"),
        ("title =", "steps = [\"warp\"]\ntitle =", "line 2: unknown variant `warp`"),
        ("title = \"two near hosts\"", "", "missing field `title`"),
    ] {
        assert!(SMALL.contains(from), "{from}");
        let error = format!("{:#}", Scenario::parse("small", &SMALL.replace(from, to)).unwrap_err());
        assert!(error.contains(said), "{to}: {error}");
    }
}

#[test]
fn a_name_that_isnt_there_is_told_the_others() {
    let error = Scenario::load("pathwey").unwrap_err().to_string();
    assert!(
        error.contains("there is no scenario \"pathwey\"") && error.contains("pathway, pathway-lossy, satellite"),
        "{error}"
    );
}
