//! Words, values and signs of an expression, each with its position in characters.

use maxhost_model::text::is_storable;

use super::value::Number;
use crate::refused::{Refused, Result};
use crate::rules::Rule;

/// What an expression is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A word: a name or a keyword.
    Word(String),
    /// A name in double quotes, which is never a keyword.
    Quoted(String),
    /// A text in single quotes.
    Text(String),
    /// A number.
    Number(Number),
    /// One of `= != < <= > >= ( ) ,`.
    Sign(&'static str),
    /// The end of the expression.
    End,
}

/// A token, and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) position: usize,
}

/// Two-character signs stand before the one-character signs that they begin with.
const SIGNS: [&str; 9] = ["!=", "<=", ">=", "=", "<", ">", "(", ")", ","];

pub(super) fn refuse(position: usize, message: impl std::fmt::Display) -> Refused {
    Refused::new(Rule::QueryInvalid, format!("at character {position}: {message}")).detail("position", position)
}

/// Cuts an expression into tokens; the last is always [`Token::End`].
pub(super) fn tokens(expression: &str) -> Result<Vec<Placed>> {
    let chars: Vec<char> = expression.chars().collect();
    if !is_storable(expression) {
        let position = chars.iter().position(|c| *c == '\0').unwrap_or_default();
        return Err(refuse(position, "a query cannot ask for the NUL character"));
    }
    let mut lexer = Lexer { chars: &chars, at: 0 };
    let mut found = Vec::new();
    loop {
        lexer.skip_while(char::is_whitespace);
        let position = lexer.at;
        let token = lexer.next()?;
        let end = token == Token::End;
        found.push(Placed { token, position });
        if end {
            return Ok(found);
        }
    }
}

struct Lexer<'a> {
    chars: &'a [char],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    /// Passes over what fits, and returns it.
    fn skip_while(&mut self, fits: impl Fn(char) -> bool) -> String {
        let rest = self.chars.get(self.at..).unwrap_or(&[]);
        let skipped: String = rest.iter().copied().take_while(|c| fits(*c)).collect();
        self.at += skipped.chars().count();
        skipped
    }

    fn next(&mut self) -> Result<Token> {
        let Some(first) = self.peek(0) else { return Ok(Token::End) };
        let negative = first == '-' && self.peek(1).is_some_and(|c| c.is_ascii_digit());
        match first {
            '\'' => self.quoted('\'').map(Token::Text),
            '"' => self.quoted('"').map(Token::Quoted),
            _ if first.is_ascii_digit() || negative => self.number(),
            _ if first.is_alphabetic() || first == '_' => {
                Ok(Token::Word(self.skip_while(|c| c.is_alphanumeric() || c == '_' || c == '.')))
            }
            _ => self.sign(first),
        }
    }

    /// What is between two quotes; a doubled quote stands for one.
    fn quoted(&mut self, quote: char) -> Result<String> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            let Some(c) = self.peek(0) else { return Err(refuse(start, format!("the quote {quote} is never closed"))) };
            self.at += 1;
            if c != quote {
                text.push(c);
            } else if self.peek(0) == Some(quote) {
                text.push(quote);
                self.at += 1;
            } else {
                return Ok(text);
            }
        }
    }

    fn number(&mut self) -> Result<Token> {
        let start = self.at;
        self.at += 1;
        self.skip_while(|c| c.is_alphanumeric() || c == '.' || c == '_');
        let text: String = self.chars.get(start..self.at).unwrap_or(&[]).iter().collect();
        let number = Number::parse(&text).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            refuse(start, format!("'{shown}' is no number, or beyond the range: write digits, as in 100 or -12.5"))
        })?;
        Ok(Token::Number(number))
    }

    fn sign(&mut self, first: char) -> Result<Token> {
        let pair: String = [Some(first), self.peek(1)].into_iter().flatten().collect();
        if let Some(sign) = SIGNS.into_iter().find(|sign| pair.starts_with(sign)) {
            self.at += sign.len();
            return Ok(Token::Sign(sign));
        }
        let hint = if first == '!' { ": write != or not" } else { "" };
        Err(refuse(self.at, format!("'{}' does not belong here{hint}", first.escape_debug())))
    }
}
