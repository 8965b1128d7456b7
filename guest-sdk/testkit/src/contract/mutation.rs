//! Changing a transaction in every way that there is, to see what a contract forgets to check.

use std::fmt;

use super::draft::Draft;
use super::ledger::fail;
use super::tree::Tree;

/// A change of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mutation {
    /// An input is left out.
    DropInput(usize),
    /// An output is left out.
    DropOutput(usize),
    /// An output is there twice.
    DuplicateOutput(usize),
    /// A reference is left out.
    DropReference(usize),
    /// A command is left out.
    DropCommand(usize),
    /// A command has another name: that of none.
    RenameCommand(usize),
    /// One signer of a command does not sign.
    DropSigner {
        /// The command.
        command: usize,
        /// The position among its signers.
        signer: usize,
    },
    /// A part of an output's data is another.
    ChangeOutput {
        /// The output.
        output: usize,
        /// The path to the part, joined by points.
        field: String,
    },
    /// A part of a command's data is another.
    ChangeCommand {
        /// The command.
        command: usize,
        /// The path to the part.
        field: String,
    },
    /// The time-window is left out.
    DropTimeWindow,
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mutation::DropInput(index) => write!(f, "input {index} left out"),
            Mutation::DropOutput(index) => write!(f, "output {index} left out"),
            Mutation::DuplicateOutput(index) => write!(f, "output {index} twice"),
            Mutation::DropReference(index) => write!(f, "reference {index} left out"),
            Mutation::DropCommand(index) => write!(f, "command {index} left out"),
            Mutation::RenameCommand(index) => write!(f, "command {index} unknown"),
            Mutation::DropSigner { command, signer } => write!(f, "signer {signer} of command {command} left out"),
            Mutation::ChangeOutput { output, field } => write!(f, "output {output}: {field} changed"),
            Mutation::ChangeCommand { command, field } => write!(f, "command {command}: {field} changed"),
            Mutation::DropTimeWindow => f.write_str("time-window left out"),
        }
    }
}

/// All changes of one transaction.
pub struct Mutations {
    all: Vec<(Mutation, Draft)>,
}

impl Mutations {
    pub(super) fn of(draft: &Draft) -> Mutations {
        let mut mutations = Mutations { all: Vec::new() };
        let raw = &draft.raw;
        for index in 0..raw.inputs.len() {
            mutations.add(draft, Mutation::DropInput(index), |raw| drop(raw.inputs.remove(index)));
        }
        for index in 0..raw.references.len() {
            mutations.add(draft, Mutation::DropReference(index), |raw| drop(raw.references.remove(index)));
        }
        for (index, output) in raw.outputs.iter().enumerate() {
            mutations.add(draft, Mutation::DropOutput(index), |raw| drop(raw.outputs.remove(index)));
            mutations.add(draft, Mutation::DuplicateOutput(index), |raw| raw.outputs.push(output.clone()));
            for (field, data) in changes(&output.data) {
                mutations.add(draft, Mutation::ChangeOutput { output: index, field }, |raw| {
                    raw.outputs[index].data = data;
                });
            }
        }
        for (index, command) in raw.commands.iter().enumerate() {
            mutations.add(draft, Mutation::DropCommand(index), |raw| drop(raw.commands.remove(index)));
            mutations.add(draft, Mutation::RenameCommand(index), |raw| raw.commands[index].command.name.push('X'));
            for signer in 0..command.signers.len() {
                mutations.add(draft, Mutation::DropSigner { command: index, signer }, |raw| {
                    drop(raw.commands[index].signers.remove(signer));
                });
            }
            for (field, data) in changes(&command.command.value) {
                mutations.add(draft, Mutation::ChangeCommand { command: index, field }, |raw| {
                    raw.commands[index].command.value = data;
                });
            }
        }
        if raw.time_window.is_some() {
            mutations.add(draft, Mutation::DropTimeWindow, |raw| raw.time_window = None);
        }
        mutations
    }

    fn add(&mut self, draft: &Draft, mutation: Mutation, change: impl FnOnce(&mut maxhost_contract::RawTransaction)) {
        self.all.push((mutation, draft.fork().edit(change)));
    }

    /// Leaves out changes that are right: a payer may choose the payee.
    #[must_use]
    pub fn allow(mut self, is_right: impl Fn(&Mutation) -> bool) -> Mutations {
        self.all.retain(|(mutation, _)| !is_right(mutation));
        self
    }

    /// The changes that the contracts accept all the same.
    #[must_use]
    pub fn survivors(&self) -> Vec<Mutation> {
        let survives = |(mutation, draft): &(Mutation, Draft)| draft.rejection().is_none().then(|| mutation.clone());
        self.all.iter().filter_map(survives).collect()
    }

    /// The contracts refuse every change.
    ///
    /// # Panics
    /// If they accept one; all such are listed.
    #[track_caller]
    pub fn all_rejected(&self) {
        let survivors: Vec<String> = self.survivors().iter().map(ToString::to_string).collect();
        if !survivors.is_empty() {
            fail(&format!("accepted although changed:\n  {}", survivors.join("\n  ")));
        }
    }
}

/// The data with one part changed, for every part.
fn changes(data: &[u8]) -> Vec<(String, Vec<u8>)> {
    let Ok(tree) = maxhost_contract::decode::<Tree>(data) else { return Vec::new() };
    let written = |(path, tree): (String, Tree)| maxhost_contract::encode(&tree).ok().map(|data| (path, data));
    tree.changes().into_iter().filter_map(written).collect()
}
