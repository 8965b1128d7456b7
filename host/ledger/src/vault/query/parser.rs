//! The language of conditions, as people write it (behaviour.md 12.5).
//!
//! ```text
//! any       = all { "or" all }
//! all       = not { "and" not }
//! not       = { "not" } primary
//! primary   = "(" any ")" | operand condition
//! condition = sign operand
//!           | [ "not" ] "between" operand "and" operand
//!           | [ "not" ] "in" "(" [ operand { "," operand } ] ")"
//!           | [ "not" ] ( "like" | "ilike" ) text
//!           | "is" [ "not" ] "null"
//! operand   = name | text | number | "true" | "false" | "null"
//! ```

use super::criteria::{Builtin, CompareOp, Criterion, Field, MAX_DEPTH, MAX_EXPRESSION, MAX_LIST, Operand};
use super::lexer::{Placed, Token, refuse, tokens};
use super::value::Value;
use super::whose::of_keys;
use crate::refused::{Refused, Result};
use crate::time::Timestamp;

/// Words with a meaning, in any case of letters. A field of such a name is written in double quotes.
pub(super) const KEYWORDS: [&str; 11] =
    ["and", "or", "not", "between", "in", "like", "ilike", "is", "null", "true", "false"];

/// Reads a condition.
///
/// # Errors
/// [`Rule::QueryInvalid`](crate::Rule::QueryInvalid), with `position` in its details: where the word, value or sign begins
/// that is wrong, in characters from 0; at the end it is the length.
pub fn parse(expression: &str) -> Result<Criterion> {
    parse_within(expression, MAX_EXPRESSION)
}

/// Reads a condition of at most so many characters.
pub(super) fn parse_within(expression: &str, longest: usize) -> Result<Criterion> {
    if expression.chars().nth(longest).is_some() {
        return Err(refuse(longest, format!("an expression has at most {longest} characters")));
    }
    let mut parser = Parser { tokens: tokens(expression)?, at: 0, depth: 0 };
    let criterion = parser.any()?;
    match parser.peek() {
        Token::End => Ok(criterion),
        Token::Sign(")") => Err(parser.wrong("a parenthesis is closed that was never opened")),
        _ => Err(parser.expected("'and', 'or' or the end")),
    }
}

/// Reads the name of a field, for sorting and aggregates.
///
/// # Errors
/// [`Rule::QueryInvalid`](crate::Rule::QueryInvalid), as for [`parse`].
pub(super) fn parse_field(text: &str) -> Result<Field> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0 };
    match parser.operand()? {
        Operand::Field(field) if *parser.peek() == Token::End => Ok(field),
        _ => Err(refuse(0, "expected the name of one field")),
    }
}

struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn placed(&self) -> Option<&Placed> {
        self.tokens.get(self.at).or(self.tokens.last())
    }

    fn peek(&self) -> &Token {
        self.placed().map_or(&Token::End, |placed| &placed.token)
    }

    fn position(&self) -> usize {
        self.placed().map_or(0, |placed| placed.position)
    }

    fn wrong(&self, message: impl std::fmt::Display) -> Refused {
        refuse(self.position(), message)
    }

    fn expected(&self, what: &str) -> Refused {
        let found = match self.peek() {
            Token::Word(word) | Token::Quoted(word) => format!("'{}'", shown(word)),
            Token::Text(text) => format!("the text '{}'", shown(text)),
            Token::Number(number) => format!("the number {number}"),
            Token::Sign(sign) => format!("'{sign}'"),
            Token::End => "the end".to_owned(),
        };
        self.wrong(format!("expected {what}, found {found}"))
    }

    fn is_keyword(&self, keyword: &str) -> bool {
        matches!(self.peek(), Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    fn take_keyword(&mut self, keyword: &str) -> bool {
        let found = self.is_keyword(keyword);
        self.at += usize::from(found);
        found
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Token::Sign(other) if *other == sign);
        self.at += usize::from(found);
        found
    }

    fn need_keyword(&mut self, keyword: &str) -> Result<()> {
        if self.take_keyword(keyword) { Ok(()) } else { Err(self.expected(&format!("'{keyword}'"))) }
    }

    fn need_sign(&mut self, sign: &str) -> Result<()> {
        if self.take_sign(sign) { Ok(()) } else { Err(self.expected(&format!("'{sign}'"))) }
    }

    fn any(&mut self) -> Result<Criterion> {
        let mut parts = vec![self.all()?];
        while self.take_keyword("or") {
            parts.push(self.all()?);
        }
        Ok(one_or(parts, Criterion::Any))
    }

    fn all(&mut self) -> Result<Criterion> {
        let mut parts = vec![self.not()?];
        while self.take_keyword("and") {
            parts.push(self.not()?);
        }
        Ok(one_or(parts, Criterion::All))
    }

    fn not(&mut self) -> Result<Criterion> {
        if !self.is_keyword("not") {
            return self.primary();
        }
        self.enter()?;
        self.at += 1;
        let negated = self.not()?.negate();
        self.depth -= 1;
        Ok(negated)
    }

    /// Counts a level of nesting, so that no expression can exhaust the stack.
    fn enter(&mut self) -> Result<()> {
        if self.depth == MAX_DEPTH {
            return Err(self.wrong(format!("an expression is nested at most {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        Ok(())
    }

    fn primary(&mut self) -> Result<Criterion> {
        if !matches!(self.peek(), Token::Sign("(")) {
            let position = self.position();
            return of_keys(self.comparison()?).map_err(|message| refuse(position, message));
        }
        self.enter()?;
        self.at += 1;
        let inner = self.any()?;
        self.need_sign(")")?;
        self.depth -= 1;
        Ok(inner)
    }

    fn comparison(&mut self) -> Result<Criterion> {
        let value = self.operand()?;
        if let Token::Sign(sign) = self.peek()
            && let Some(op) = compare_op(sign)
        {
            self.at += 1;
            let position = self.position();
            let right = self.operand()?;
            check_time(&value, &right, position)?;
            return Ok(Criterion::Compare { left: value, op, right });
        }
        if self.take_keyword("is") {
            let negated = self.take_keyword("not");
            self.need_keyword("null")?;
            return Ok(Criterion::IsNull { value, negated });
        }
        let negated = self.take_keyword("not");
        if self.take_keyword("between") {
            let low = self.operand_for(&value)?;
            self.need_keyword("and")?;
            let high = self.operand_for(&value)?;
            return Ok(Criterion::Between { value, low, high, negated });
        }
        if self.take_keyword("in") {
            let list = self.list(&value)?;
            return Ok(Criterion::In { value, list, negated });
        }
        if self.is_keyword("like") || self.is_keyword("ilike") {
            let ignore_case = self.is_keyword("ilike");
            self.at += 1;
            let Token::Text(pattern) = self.peek().clone() else { return Err(self.expected("a pattern in quotes")) };
            self.at += 1;
            return Ok(Criterion::Like { value, pattern, ignore_case, negated });
        }
        let what = if negated {
            "'between', 'in', 'like' or 'ilike'"
        } else {
            "a comparison: = != < <= > >= between in like ilike is"
        };
        Err(self.expected(what))
    }

    fn list(&mut self, value: &Operand) -> Result<Vec<Operand>> {
        self.need_sign("(")?;
        let mut list = Vec::new();
        if self.take_sign(")") {
            return Ok(list);
        }
        loop {
            if list.len() == MAX_LIST {
                return Err(self.wrong(format!("a list has at most {MAX_LIST} values")));
            }
            list.push(self.operand_for(value)?);
            if self.take_sign(")") {
                return Ok(list);
            }
            if !self.take_sign(",") {
                return Err(self.expected("',' or ')'"));
            }
        }
    }

    fn operand_for(&mut self, value: &Operand) -> Result<Operand> {
        let position = self.position();
        let operand = self.operand()?;
        check_time(value, &operand, position)?;
        Ok(operand)
    }

    fn operand(&mut self) -> Result<Operand> {
        let operand = match self.peek() {
            Token::Text(text) => Operand::Literal(Value::Text(text.clone())),
            Token::Number(number) => Operand::Literal(Value::Number(*number)),
            Token::Quoted(name) if name.is_empty() => return Err(self.wrong("the name of a field is empty")),
            Token::Quoted(name) => Operand::Field(Field::Data(name.clone())),
            Token::Word(word) => match word.to_ascii_lowercase().as_str() {
                "true" => Operand::Literal(Value::Bool(true)),
                "false" => Operand::Literal(Value::Bool(false)),
                "null" => Operand::Literal(Value::Null),
                keyword if KEYWORDS.contains(&keyword) => return Err(self.expected("a field or a value")),
                _ => Operand::Field(field(word)),
            },
            _ => return Err(self.expected("a field or a value")),
        };
        self.at += 1;
        Ok(operand)
    }
}

/// The field of a name: those that every state has come before those of the data.
fn field(name: &str) -> Field {
    let builtin = Builtin::NAMED.iter().find(|(known, _)| *known == name);
    builtin.map_or_else(|| Field::Data(name.to_owned()), |(_, builtin)| Field::Builtin(*builtin))
}

fn one_or(mut parts: Vec<Criterion>, join: fn(Vec<Criterion>) -> Criterion) -> Criterion {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            join(parts)
        }
        None => join(parts),
    }
}

fn compare_op(sign: &str) -> Option<CompareOp> {
    use CompareOp::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    [Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual].into_iter().find(|op| op.sign() == sign)
}

/// What every state has as a time is compared to times only.
fn check_time(left: &Operand, right: &Operand, position: usize) -> Result<()> {
    let is_time = |operand: &Operand| matches!(operand, Operand::Field(Field::Builtin(builtin)) if builtin.is_time());
    let literal = match (left, right) {
        (time, Operand::Literal(literal)) if is_time(time) => literal,
        (Operand::Literal(literal), time) if is_time(time) => literal,
        _ => return Ok(()),
    };
    match literal {
        Value::Null => Ok(()),
        Value::Text(text) if text.parse::<Timestamp>().is_ok() => Ok(()),
        _ => Err(refuse(position, "a time is expected, as in '2026-01-31T12:00:00Z'")),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}
