//! The assembler against bytes cut at every place and frames that begin alike.
//! A file of its own because the code it tests is long enough.

use super::*;

fn frame(items: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    head::write_server_text(&mut wire, format!(r#"{{"type":"PUSH","data":{{"items":[{items}]}}}}"#).as_bytes());
    wire
}

fn texts(received: &[Received]) -> Vec<Rc<Frame>> {
    let texts = received.iter().map(|received| match received {
        Received::Text(frame) => Rc::clone(frame),
        other => panic!("{other:?}"),
    });
    texts.collect()
}

/// Three frames; the middle one is longer than a fingerprint and differs from its twin only in the last message.
fn wire(last: u32) -> Vec<u8> {
    let long: Vec<String> = (0..9).map(|n| format!(r#"{{"p":1,"n":{n},"t":123456789}}"#)).collect();
    let long = format!(r#"{},{{"p":1,"n":{last},"t":5}}"#, long.join(","));
    [frame(r#"{"p":0,"n":0,"t":1}"#), frame(&long), frame(r#"{"p":0,"n":1,"t":1}"#)].concat()
}

#[test]
fn frames_cut_at_any_byte_come_out_as_if_uncut() {
    let wire = wire(9);
    let mut whole = Vec::new();
    let mut cache = Cache::default();
    cache.feed(&mut None, &wire, &mut whole).expect("legal");
    let whole = texts(&whole);
    assert_eq!(whole.len(), 3);

    for cut in 0..=wire.len() {
        for mut cache in [Cache::default(), known(&wire)] {
            let (mut partial, mut out) = (None, Vec::new());
            cache.feed(&mut partial, &wire[..cut], &mut out).expect("legal");
            cache.feed(&mut partial, &wire[cut..], &mut out).expect("legal");

            let out = texts(&out);
            assert!(partial.is_none(), "cut at {cut}");
            assert!(out.iter().map(|f| &f.bytes).eq(whole.iter().map(|f| &f.bytes)), "cut at {cut}");
        }
    }
}

#[test]
fn frames_fed_byte_by_byte_come_out_whole() {
    let wire = wire(9);
    let (mut cache, mut partial, mut out) = (Cache::default(), None, Vec::new());

    for byte in &wire {
        cache.feed(&mut partial, std::slice::from_ref(byte), &mut out).expect("legal");
    }

    assert_eq!(texts(&out).iter().map(|frame| frame.len()).sum::<usize>(), wire.len());
}

fn known(wire: &[u8]) -> Cache {
    let mut cache = Cache::default();
    cache.feed(&mut None, wire, &mut Vec::new()).expect("legal");
    cache
}

#[test]
fn a_frame_that_only_begins_like_a_known_one_is_not_taken_for_it() {
    let (one, other) = (wire(9), wire(8));

    for cut in 0..=other.len() {
        let mut cache = known(&one);
        let (mut partial, mut out) = (None, Vec::new());
        cache.feed(&mut partial, &other[..cut], &mut out).expect("legal");
        cache.feed(&mut partial, &other[cut..], &mut out).expect("legal");

        let Content::Push(push) = &texts(&out)[1].content else { panic!("not a push") };
        assert_eq!(push.runs.last().map(|run| run.last), Some(8), "cut at {cut}");
    }
}

#[test]
fn the_same_bytes_are_parsed_once() {
    let mut cache = Cache::default();
    let mut out = Vec::new();

    cache.feed(&mut None, &wire(9), &mut out).expect("legal");
    cache.feed(&mut None, &wire(9), &mut out).expect("legal");

    let out = texts(&out);
    assert!(Rc::ptr_eq(&out[1], &out[4]));
}

#[test]
fn the_cache_forgets_its_oldest_beyond_its_bound() {
    let mut cache = Cache::default();

    for n in 0..FRAMES_MAX + 10 {
        let wire = frame(&format!(r#"{{"p":1,"n":{n},"t":1}}"#));
        cache.feed(&mut None, &wire, &mut Vec::new()).expect("legal");
    }

    assert_eq!(cache.frames.len(), FRAMES_MAX);
    assert_eq!(cache.forgotten().len(), 10);
}

#[test]
fn a_close_gives_its_code_and_reason() {
    let mut out = Vec::new();

    Cache::default().feed(&mut None, b"\x88\x06\x0b\xb9slow", &mut out).expect("legal");

    assert!(matches!(&out[..], [Received::Close { code: 3001, reason }] if reason == "slow"));
}

#[test]
fn a_compressed_frame_is_read_as_what_it_inflates_to_and_inflated_once() {
    let plain = frame(r#"{"p":1,"n":4,"t":9},{"p":1,"n":5,"t":9},{"p":1,"n":6,"t":9}"#);
    let payload = &plain[2..];
    let mut deflated = Vec::with_capacity(payload.len() + 64);
    let mut stream = flate2::Compress::new(flate2::Compression::new(6), false);
    stream.compress_vec(payload, &mut deflated, flate2::FlushCompress::Sync).expect("room");
    deflated.truncate(deflated.len() - 4);
    let wire = [&[0xc1, deflated.len() as u8], &deflated[..]].concat();
    let twice = [&wire[..], &wire].concat();

    for cut in 0..=twice.len() {
        let (mut cache, mut partial, mut out) = (Cache::new(&Tidegate, true), None, Vec::new());
        cache.feed(&mut partial, &twice[..cut], &mut out).expect("legal");
        cache.feed(&mut partial, &twice[cut..], &mut out).expect("legal");
        let texts = texts(&out);
        assert_eq!(texts[0].content, Content::parse(payload), "cut at {cut}");
        assert!(Rc::ptr_eq(&texts[0], &texts[1]), "cut at {cut}");
    }
    assert!(Cache::new(&Tidegate, false).feed(&mut None, &wire, &mut Vec::new()).is_err(), "it was not negotiated");
}
