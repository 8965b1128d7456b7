//! The names that the flows of a CorDapp give: each must lead somewhere. Checked when the CorDapp is compiled.

use crate::entry::FlowEntry;

/// Stops the compiler with the reason if two flows have one name, if a flow responds to one that this CorDapp does not
/// have or that opens no sessions, or if two flows respond to one.
///
/// ```compile_fail,E0080
/// use maxhost_sdk::prelude::*;
///
/// #[flow(startable)]
/// fn make_ping() -> Result<()> {
///     Ok(())
/// }
///
/// // The flow is called `make-ping`.
/// #[flow(responds_to = "make_ping")]
/// fn pong(_session: Session) -> Result<()> {
///     Ok(())
/// }
///
/// cordapp! { flows: [make_ping, pong] }
/// ```
// The panic of a constant is an error of the compiler. Nothing of this is in the component.
#[allow(clippy::panic)]
pub const fn check(cordapp: &str, flows: &[FlowEntry]) {
    let mut index = 0;
    while index < flows.len() {
        let flow = &flows[index];
        if let Some(wrong) = check_flow(cordapp, flow, flows, index) {
            panic!("{}", wrong.as_str());
        }
        index += 1;
    }
}

const fn check_flow(cordapp: &str, flow: &FlowEntry, flows: &[FlowEntry], index: usize) -> Option<Words> {
    if let Some(first) = position(flow.name, flows)
        && first < index
    {
        return Some(Words::new().add("two flows of this CorDapp are called `").add(flow.name).add("`"));
    }
    let Some(protocol) = flow.responds_to else { return None };
    let says = Words::new().add("flow `").add(flow.name).add("` responds to `").add(protocol).add("`");
    let mut other = 0;
    while other < index {
        if let Some(same) = flows[other].responds_to
            && is_same(local(cordapp, same), local(cordapp, protocol))
        {
            return Some(says.add(", and so does flow `").add(flows[other].name).add("`: one flow answers a protocol"));
        }
        other += 1;
    }
    let name = local(cordapp, protocol);
    if contains_slash(name) {
        return None;
    }
    match position(name, flows) {
        Some(found) if flows[found].initiating => None,
        Some(_) => Some(says.add(", which opens no sessions: it is not `initiating`")),
        None => Some(says.add(", which is no flow of this CorDapp").add_known(name, flows)),
    }
}

/// `app/flow` of this CorDapp without the `app/`; of another one as it is.
const fn local<'a>(cordapp: &str, protocol: &'a str) -> &'a str {
    let (own, whole) = (cordapp.as_bytes(), protocol.as_bytes());
    if whole.len() <= own.len() || whole[own.len()] != b'/' {
        return protocol;
    }
    let (before, after) = protocol.split_at(own.len());
    if is_same(before, cordapp) { after.split_at(1).1 } else { protocol }
}

const fn contains_slash(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'/' {
            return true;
        }
        at += 1;
    }
    false
}

const fn position(name: &str, flows: &[FlowEntry]) -> Option<usize> {
    let mut index = 0;
    while index < flows.len() {
        if is_same(flows[index].name, name) {
            return Some(index);
        }
        index += 1;
    }
    None
}

const fn is_same(one: &str, two: &str) -> bool {
    is_alike(one, two, false)
}

/// Whether two names are the same, or would be with `-` for `_`.
const fn is_alike(one: &str, two: &str, hyphens: bool) -> bool {
    let (one, two) = (one.as_bytes(), two.as_bytes());
    if one.len() != two.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        let separators = matches!((one[at], two[at]), (b'-' | b'_', b'-' | b'_'));
        if one[at] != two[at] && !(hyphens && separators) {
            return false;
        }
        at += 1;
    }
    true
}

/// A sentence that is put together while compiling, cut where it gets too long.
#[derive(Debug, Clone, Copy)]
struct Words {
    bytes: [u8; 1024],
    length: usize,
}

impl Words {
    const fn new() -> Words {
        Words { bytes: [0; 1024], length: 0 }
    }

    const fn add(mut self, text: &str) -> Words {
        let text = text.as_bytes();
        let mut at = 0;
        while at < text.len() && self.length < self.bytes.len() {
            self.bytes[self.length] = text[at];
            self.length += 1;
            at += 1;
        }
        self
    }

    /// The flow that was meant, or all that open sessions.
    const fn add_known(mut self, name: &str, flows: &[FlowEntry]) -> Words {
        let mut index = 0;
        while index < flows.len() {
            if is_alike(flows[index].name, name, true) {
                return self.add(": did you mean `").add(flows[index].name).add("`?");
            }
            index += 1;
        }
        let (mut index, mut before) = (0, ": those that open sessions are `");
        while index < flows.len() {
            if flows[index].initiating {
                self = self.add(before).add(flows[index].name);
                before = "`, `";
            }
            index += 1;
        }
        self.add("`")
    }

    const fn as_str(&self) -> &str {
        match str::from_utf8(self.bytes.split_at(self.length).0) {
            Ok(text) => text,
            // Names are ASCII, so that no cut goes through a character.
            Err(_) => "",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::entry::Start;

    const fn flow(name: &'static str, initiating: bool, responds_to: Option<&'static str>) -> FlowEntry {
        FlowEntry { name, doc: "", responds_to, initiating, version: 1, start: Start::SubFlow }
    }

    fn wrong(flows: &[FlowEntry]) -> Option<String> {
        (0..flows.len())
            .find_map(|index| check_flow("app", &flows[index], flows, index).map(|words| words.as_str().to_owned()))
    }

    #[test]
    fn names_that_lead_somewhere_are_taken() {
        const FLOWS: &[FlowEntry] = &[
            flow("ping", true, None),
            flow("pong", false, Some("ping")),
            flow("other", true, None),
            flow("answers_other", false, Some("app/other")),
            flow("answers-foreign", false, Some("apps/other")),
        ];
        const _: () = check("app", FLOWS);
        assert_eq!(wrong(FLOWS), None);
    }

    #[test]
    fn names_that_lead_nowhere_are_told_with_those_that_do() {
        let ping = || flow("make-ping", true, None);
        for (flows, words) in [
            (vec![ping(), ping()], "two flows of this CorDapp are called `make-ping`"),
            (
                vec![ping(), flow("pong", false, Some("make_ping"))],
                "flow `pong` responds to `make_ping`, which is no flow of this CorDapp: did you mean `make-ping`?",
            ),
            (
                vec![ping(), flow("x", true, None), flow("pong", false, Some("app/y"))],
                "flow `pong` responds to `app/y`, which is no flow of this CorDapp: those that open sessions are \
                 `make-ping`, `x`",
            ),
            (
                vec![flow("a", false, Some("b/c")), flow("d", false, Some("a"))],
                "flow `d` responds to `a`, which opens no sessions: it is not `initiating`",
            ),
            (
                vec![ping(), flow("a", false, Some("make-ping")), flow("b", false, Some("app/make-ping"))],
                "flow `b` responds to `app/make-ping`, and so does flow `a`: one flow answers a protocol",
            ),
        ] {
            assert_eq!(wrong(&flows).as_deref(), Some(words));
        }
        let long = "n".repeat(5000).leak();
        assert_eq!(wrong(&[flow(long, true, None), flow(long, true, None)]).unwrap().len(), 1024);
    }
}
