//! Contract code made by hand: each contract in it does one thing, whatever the transaction says.

use maxhost_ledger::attachment;
use maxhost_ledger::keys::{Scheme, SigningKey};

/// The contracts in it, by what they do. The first letter decides.
pub const CONTRACTS: [&str; 10] =
    ["accept", "reject", "loop", "grow", "unreachable", "stack", "divide", "bad-result", "touch", "huge-message"];

/// The schema of their only type, `State` in version 2.
pub const SCHEMA: &str = "anything";

pub fn publisher() -> SigningKey {
    SigningKey::from_seed(Scheme::Ed25519, &[77; 32]).unwrap()
}

/// Where the description lies in memory.
const BASE: u32 = 4096;

/// Writes records and lists as the canonical ABI lays them out.
struct Layout {
    bytes: Vec<u8>,
}

impl Layout {
    fn place(&mut self, bytes: &[u8]) -> u32 {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
        let at = BASE + u32::try_from(self.bytes.len()).unwrap();
        self.bytes.extend_from_slice(bytes);
        at
    }

    fn list(&mut self, bytes: &[u8], count: usize) -> [u8; 8] {
        let at = self.place(bytes).to_le_bytes();
        let count = u32::try_from(count).unwrap().to_le_bytes();
        [at, count].concat().try_into().unwrap()
    }

    fn text(&mut self, text: &str) -> [u8; 8] {
        self.list(text.as_bytes(), text.len())
    }
}

/// Memory with the description, and where it begins.
fn described(code_version: u32) -> (Vec<u8>, u32) {
    let mut layout = Layout { bytes: Vec::new() };
    let none = [0_u8; 8];
    let state = [&layout.text("State")[..], &2_u32.to_le_bytes(), &layout.text(SCHEMA), &none, &none].concat();
    let states = layout.list(&state, 1);
    let contract = |layout: &mut Layout, name: &str| [layout.text(name), states, none, none].concat();
    let contracts: Vec<u8> = CONTRACTS.iter().flat_map(|name| contract(&mut layout, name)).collect();
    let contracts = layout.list(&contracts, CONTRACTS.len());
    let record = [
        &layout.text("hand-made")[..],
        &layout.text("1.0"),
        &layout.text("tests"),
        &code_version.to_le_bytes(),
        &[0; 4],
        &contracts,
    ]
    .concat();
    let at = layout.place(&record);
    (layout.bytes, at)
}

/// The component, without signatures. `more` goes into its module.
pub fn code(code_version: u32, more: &str) -> Vec<u8> {
    let (memory, description) = described(code_version);
    let memory: String = memory.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let module = format!(
        r#"
        (memory (export "memory") 64)
        (data (i32.const 256) "too-much" "it is 5 too much")
        (data (i32.const {BASE}) "{memory}")
        (global $free (mut i32) (i32.const 1048576))
        (global $touched (mut i32) (i32.const 0))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
            (global.set $free (i32.add (local.get $at) (local.get 3)))
            (local.get $at))
        (func (export "describe-contract") (result i32) (i32.const {description}))
        (func $deep (param i64) (result i64)
            (i64.add (i64.const 1) (call $deep (i64.add (local.get 0) (i64.const 1)))))
        (func $reject (param $message i32) (param $length i32) (result i32)
            (i32.store8 (i32.const 64) (i32.const 1))
            (i32.store (i32.const 68) (i32.const 256)) (i32.store (i32.const 72) (i32.const 8))
            (i32.store (i32.const 76) (local.get $message)) (i32.store (i32.const 80) (local.get $length))
            (i32.const 64))
        (func (export "verify") (param i32 i32 i32 i32 i32 i32 i32) (result i32)
            (local $letter i32)
            (local.set $letter (i32.load8_u (local.get 3)))
            (if (i32.eq (local.get $letter) (i32.const {r})) (then (return (call $reject (i32.const 264) (i32.const 16)))))
            (if (i32.eq (local.get $letter) (i32.const {h})) (then (return (call $reject (i32.const 2097152) (i32.const 1500000)))))
            (if (i32.eq (local.get $letter) (i32.const {l})) (then (loop $on (br $on))))
            (if (i32.eq (local.get $letter) (i32.const {g}))
                (then (loop $on (drop (memory.grow (i32.const 1))) (br $on))))
            (if (i32.eq (local.get $letter) (i32.const {u})) (then unreachable))
            (if (i32.eq (local.get $letter) (i32.const {s})) (then (drop (call $deep (i64.const 0)))))
            (if (i32.eq (local.get $letter) (i32.const {d}))
                (then (drop (i32.div_u (i32.const 1) (i32.const 0)))))
            (if (i32.eq (local.get $letter) (i32.const {b})) (then (return (i32.const -16))))
            (if (i32.eq (local.get $letter) (i32.const {t}))
                (then
                    (if (global.get $touched) (then (return (call $reject (i32.const 264) (i32.const 16)))))
                    (global.set $touched (i32.const 1))
                    (i32.store (i32.const 128) (i32.add (i32.load (i32.const 128)) (i32.const 1)))
                    (if (i32.gt_u (i32.load (i32.const 128)) (i32.const 1))
                        (then (return (call $reject (i32.const 264) (i32.const 16)))))))
            (i32.store8 (i32.const 64) (i32.const 0))
            (i32.const 64))
        (func (export "describe") (param i32 i32 i32 i32 i32 i32) (result i32)
            (i32.store8 (i32.const 64) (i32.const 1))
            (i32.store (i32.const 72) (i32.const 256)) (i32.store (i32.const 76) (i32.const 8))
            (i32.store (i32.const 80) (i32.const 264)) (i32.store (i32.const 84) (i32.const 16))
            (i32.const 64))
        {more}"#,
        r = 'r' as u32,
        h = 'h' as u32,
        l = 'l' as u32,
        g = 'g' as u32,
        u = 'u' as u32,
        s = 's' as u32,
        d = 'd' as u32,
        b = 'b' as u32,
        t = 't' as u32,
    );
    wat::parse_str(format!("(component (core module $m {module}) {WORLD})")).unwrap()
}

/// The component, signed by [`publisher`].
pub fn signed(code_version: u32) -> Vec<u8> {
    attachment::sign(&code(code_version, ""), &publisher()).unwrap()
}

/// The types and exports of the world `contract`.
const WORLD: &str = r#"
    (core instance $i (instantiate $m))
    (type $fault' (record (field "code" string) (field "message" string)))
    (import "fault" (type $fault (eq $fault')))
    (type $fault-type' (record (field "code" string) (field "about" string)))
    (import "fault-type" (type $fault-type (eq $fault-type')))
    (type $kind' (enum "truth" "number" "text" "bytes" "time"))
    (import "attribute-kind" (type $kind (eq $kind')))
    (type $attribute-type' (record (field "name" string) (field "kind" $kind)))
    (import "attribute-type" (type $attribute-type (eq $attribute-type')))
    (type $state-type' (record (field "name" string) (field "version" u32) (field "schema" string)
        (field "attributes" (list $attribute-type)) (field "times" (list string))))
    (import "state-type" (type $state-type (eq $state-type')))
    (type $contract-type' (record (field "name" string) (field "states" (list $state-type))
        (field "commands" (list string)) (field "faults" (list $fault-type))))
    (import "contract-type" (type $contract-type (eq $contract-type')))
    (type $descriptor' (record (field "name" string) (field "version" string) (field "vendor" string)
        (field "code-version" u32) (field "no-propagation" bool) (field "contracts" (list $contract-type))))
    (import "contract-descriptor" (type $descriptor (eq $descriptor')))
    (type $contract-id' (record (field "publisher" (option (list u8))) (field "name" string)))
    (import "contract-id" (type $contract-id (eq $contract-id')))
    (type $participant' (record (field "key" (list u8)) (field "name" (option string))))
    (import "participant" (type $participant (eq $participant')))
    (type $amount' (record (field "quantity" u64) (field "token" string) (field "issuer" (option $participant))))
    (import "fungible-amount" (type $amount (eq $amount')))
    (type $activity' (record (field "at" u64) (field "flow" string)))
    (import "activity" (type $activity (eq $activity')))
    (type $value' (variant (case "truth" bool) (case "unsigned" u64) (case "signed" s64) (case "text" string)
        (case "bytes" (list u8)) (case "time" u64)))
    (import "attribute-value" (type $value (eq $value')))
    (type $attribute' (record (field "name" string) (field "value" $value)))
    (import "attribute" (type $attribute (eq $attribute')))
    (type $description' (record (field "participants" (list $participant)) (field "owner" (option $participant))
        (field "linear-id" (option (list u8))) (field "external-id" (option string)) (field "amount" (option $amount))
        (field "next-activity" (option $activity)) (field "attributes" (list $attribute))))
    (import "description" (type $description (eq $description')))
    (alias core export $i "memory" (core memory $memory))
    (alias core export $i "cabi_realloc" (core func $realloc))
    (func (export "describe-contract") (result $descriptor)
        (canon lift (core func $i "describe-contract") (memory $memory)))
    (func (export "verify") (param "contract" $contract-id) (param "transaction" (list u8))
        (result (result (error $fault)))
        (canon lift (core func $i "verify") (memory $memory) (realloc $realloc)))
    (func (export "describe") (param "contract" string) (param "state-type" string) (param "state" (list u8))
        (result (result $description (error $fault)))
        (canon lift (core func $i "describe") (memory $memory) (realloc $realloc)))
"#;
