//! Small macros for errors, progress and the log.

/// Returns a [`FlowException`](crate::FlowException) with this text from the flow: the peers see it. Also takes an error
/// made elsewhere.
///
/// ```
/// # use maxhost_sdk::prelude::*;
/// fn check(price: u64) -> Result<()> {
///     if price == 0 {
///         bail!(FlowException::new("nothing is free").of_type("quotes/free"));
///     }
///     if price > 100 {
///         bail!("{price} is too much");
///     }
///     Ok(())
/// }
/// assert_eq!(check(101).unwrap_err().to_string(), "101 is too much");
/// assert!(check(0).unwrap_err().flow_exception().unwrap().is("quotes/free"));
/// ```
#[macro_export]
macro_rules! bail {
    ($format:literal $($arguments:tt)*) => {
        return ::core::result::Result::Err($crate::Error::FlowException($crate::FlowException::new(
            ::std::format!($format $($arguments)*),
        )))
    };
    ($error:expr $(,)?) => {
        return ::core::result::Result::Err($crate::Error::from($error))
    };
}

/// [`bail!`]s unless the condition holds. Without a text it names the condition.
///
/// ```
/// # use maxhost_sdk::prelude::*;
/// fn check(echo: u32) -> Result<()> {
///     ensure!(echo > 2, "got {echo}");
///     ensure!(echo < 9);
///     Ok(())
/// }
/// assert_eq!(check(1).unwrap_err().to_string(), "got 1");
/// assert_eq!(check(9).unwrap_err().to_string(), "it does not hold that echo < 9");
/// ```
#[macro_export]
macro_rules! ensure {
    ($condition:expr $(,)?) => {
        if !$condition {
            $crate::bail!("it does not hold that {}", ::core::stringify!($condition));
        }
    };
    ($condition:expr, $($error:tt)+) => {
        if !$condition {
            $crate::bail!($($error)+);
        }
    };
}

/// Tells whoever watches the flow where it is: `progress!("round {round} of {count}")`. At most 256 characters are kept.
#[macro_export]
macro_rules! progress {
    ($($format:tt)+) => {
        $crate::__private::progress(&::std::format!($($format)+))
    };
}

/// Writes a line to the host's log, once, however often the flow is replayed.
#[macro_export]
macro_rules! debug {
    ($($format:tt)+) => {
        $crate::__private::log($crate::LogLevel::Debug, &::std::format!($($format)+))
    };
}

/// Writes a line to the host's log, once, however often the flow is replayed.
#[macro_export]
macro_rules! info {
    ($($format:tt)+) => {
        $crate::__private::log($crate::LogLevel::Info, &::std::format!($($format)+))
    };
}

/// Writes a line to the host's log, once, however often the flow is replayed.
#[macro_export]
macro_rules! warn {
    ($($format:tt)+) => {
        $crate::__private::log($crate::LogLevel::Warn, &::std::format!($($format)+))
    };
}

/// Writes a line to the host's log, once, however often the flow is replayed.
#[macro_export]
macro_rules! error {
    ($($format:tt)+) => {
        $crate::__private::log($crate::LogLevel::Error, &::std::format!($($format)+))
    };
}
