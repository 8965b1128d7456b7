//! What a process does in its cluster.

/// The roles of a host. At least one of them is set, if the host is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// It runs the flows of identities that it owns.
    pub flows: bool,
    /// It answers clients, for all identities.
    pub rpc: bool,
}

impl Roles {
    /// Both roles, which is the default.
    pub const BOTH: Roles = Roles { flows: true, rpc: true };
    /// The words for them, in the order in which they are shown.
    pub const NAMES: [&'static str; 2] = ["flows", "rpc"];

    /// The roles of these names.
    ///
    /// # Errors
    /// The first word that is none, or nothing if there is no word at all.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Roles, Option<&'a str>> {
        let mut roles = Roles { flows: false, rpc: false };
        for name in names {
            match name {
                "flows" => roles.flows = true,
                "rpc" => roles.rpc = true,
                other => return Err(Some(other)),
            }
        }
        if roles.flows || roles.rpc { Ok(roles) } else { Err(None) }
    }

    /// The words for those that are set.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let set = [self.flows, self.rpc];
        Roles::NAMES.into_iter().zip(set).filter_map(|(name, set)| set.then_some(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_written_and_read_as_words() {
        for roles in [Roles::BOTH, Roles { flows: true, rpc: false }, Roles { flows: false, rpc: true }] {
            assert_eq!(Roles::parse(roles.names()), Ok(roles));
        }
        assert_eq!(Roles::parse(["rpc", "flows", "rpc"]), Ok(Roles::BOTH));
        assert_eq!(Roles::parse(["rpc", "notary"]), Err(Some("notary")));
        assert_eq!(Roles::parse([]), Err(None));
    }
}
