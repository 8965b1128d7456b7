//! States that point to each other.

use cash_wallet::{notary, on_ledger};
use hostile_contract::{Command, Post, Signpost};
use maxhost_contract::{
    CommandSet, HasKey, LinearId, LinearPointer, State, StatePointer, StateRef, StaticPointer, Target,
};
use maxhost_sdk::ledger::{Draft, Query, StateAndRef, Transaction, resolve, text};
use maxhost_sdk::prelude::*;

/// A post that is to be put up, changed or taken down.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Put {
    /// The post that is to be changed; a new one if none is named.
    #[serde(default)]
    pub id: Option<String>,
    /// The posts that it leads to: `TXID:INDEX` for a version, or an id for the newest.
    #[serde(default)]
    pub to: Vec<String>,
    /// It is taken down.
    #[serde(default)]
    pub down: bool,
    /// Who else records it.
    #[serde(default)]
    pub with: Option<Party>,
}

/// What became of a post.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// Id of the post.
    pub id: String,
    /// Its version; empty if it was taken down.
    pub reference: String,
    /// The states that the transaction looks at, in order.
    pub references: Vec<String>,
}

/// What a transaction looks at.
#[derive(Deserialize)]
struct View {
    references: Vec<Seen>,
}

#[derive(Deserialize)]
struct Seen {
    #[serde(rename = "ref")]
    reference: StateRef,
}

/// Puts up, changes or takes down a post.
#[flow(startable)]
pub fn put(input: Put) -> Result<Done> {
    let us = on_ledger(&our_identity())?;
    let old = input.id.as_deref().map(of_id).transpose()?;
    let id = match &old {
        Some(old) => old.state.id,
        None => {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&random(16)?);
            LinearId::from_random(bytes)
        }
    };
    let mut draft = match &old {
        Some(old) => Draft::spending(std::slice::from_ref(old)),
        None => Draft::new(&notary(None)?),
    };
    if !input.down {
        let to = input.to.iter().map(|text| signpost(text)).collect::<Result<_>>()?;
        draft = draft.output(Post::CONTRACT, Post::NAME, &Post { id, whose: us.clone(), to })?;
    }
    let value = Command::Put.encode().map_err(|error| Error::unexpected(error.to_string()))?;
    let draft = draft.command(Post::CONTRACT, Command::Put.name(), value, [us.key().spki().to_vec()]);
    let sessions = match &input.with {
        Some(peer) => vec![initiate(peer)?],
        None => Vec::new(),
    };
    let done = draft.sign()?.finalise(&sessions)?;
    let reference = if input.down { String::new() } else { format!("{}:0", done.id()) };
    Ok(Done { id: id.to_string(), reference, references: looked_at(&done)? })
}

/// Records a post.
#[flow(responds_to = "put")]
pub fn takes_post(session: Session) -> Result<()> {
    session.receive_finality().map(drop)
}

/// What a pointer leads to: `TXID:INDEX`.
#[flow(startable)]
pub fn follow(to: String) -> Result<String> {
    Ok(match signpost(&to)? {
        Signpost::Newest(pointer) => resolve(&pointer)?.reference,
        Signpost::Version(pointer) => resolve(&pointer)?.reference,
    })
}

/// Resolves a pointer to a type that is called so; the kind of the error, or nothing.
#[flow(startable)]
pub fn follow_type(state_type: String) -> Result<Option<String>> {
    match resolve(&OfType(state_type)) {
        Ok(_) => Ok(None),
        Err(Error::IllegalArgument(_)) => Ok(Some("illegal-argument".to_owned())),
        Err(Error::IllegalState(_)) => Ok(Some("illegal-state".to_owned())),
        Err(other) => Err(other),
    }
}

/// A pointer to a type of states of any name.
struct OfType(String);

impl StatePointer for OfType {
    type State = Post;

    fn target(&self) -> Target {
        Target::Linear { id: LinearId::from_bytes([1; 16]), state_type: self.0.clone() }
    }

    fn points_to(&self, _: &StateRef, _: &Post) -> bool {
        false
    }
}

fn signpost(to: &str) -> Result<Signpost> {
    if let Ok(reference) = to.parse::<StateRef>() {
        return Ok(Signpost::Version(StaticPointer::resolved(reference)));
    }
    let id: LinearId = to.parse().map_err(|_| Error::IllegalArgument(format!("'{to}' is neither version nor id")))?;
    Ok(Signpost::Newest(LinearPointer::new(id)))
}

fn of_id(id: &str) -> Result<StateAndRef<Post>> {
    let found = Query::of("hostile/Post").filter(format!("id = {}", text(id))).find::<Post>()?.pop();
    found.ok_or_else(|| Error::IllegalArgument(format!("there is no post {id}")))
}

fn looked_at(transaction: &Transaction) -> Result<Vec<String>> {
    let view: View = maxhost_contract::decode(transaction.view())
        .map_err(|error| Error::unexpected(format!("the view of the transaction: {error}")))?;
    Ok(view.references.iter().map(|seen| seen.reference.to_string()).collect())
}
