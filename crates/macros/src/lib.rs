//! The attributes `#[plainsong::main]` and `#[plainsong::test]`.
//!
//! Both keep the function as it is, as an inner function, and run that in a runtime. So the tokens
//! of the body are never looked at, and no parser is needed.

use proc_macro::{Delimiter, Group, Ident, Literal, Span, TokenStream, TokenTree};

/// Runs the function as the first coroutine of a runtime. When it returns, the coroutines that are
/// left are cancelled, as with `plainsong::run`.
///
/// Arguments, each an expression:
///
/// - `workers`: the number of worker threads, 1 by default;
/// - `stack_size`: the size in bytes of the stacks of coroutines that do not ask for another size;
/// - `crate`: the path of plainsong, if it is not `::plainsong`.
///
/// ```
/// #[plainsong::main(workers = 2, stack_size = 512 * 1024)]
/// fn main() -> std::io::Result<()> {
///     let child = plainsong::spawn_anywhere(|| 6 * 7);
///     assert_eq!(child.join().unwrap(), 42);
///     Ok(())
/// }
/// ```
///
/// A function that takes arguments is refused:
///
/// ```compile_fail
/// #[plainsong::main]
/// fn main(n: u32) {}
/// ```
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(arguments, item, "::plainsong", false)
}

/// Makes the function a test that runs as the first coroutine of a runtime. It has the arguments of
/// [`macro@main`], and other attributes of tests may stand beside it, such as `#[should_panic]`.
///
/// ```
/// #[plainsong::test]
/// fn a_coroutine_ends() {
///     plainsong::spawn(|| ()).join().unwrap();
/// }
/// ```
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(arguments, item, "::plainsong", true)
}

/// [`macro@main`] of a crate that has plainsong-std under the name of `std`.
#[proc_macro_attribute]
pub fn std_main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(arguments, item, "::std::plainsong", false)
}

/// [`macro@test`] of a crate that has plainsong-std under the name of `std`.
#[proc_macro_attribute]
pub fn std_test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(arguments, item, "::std::plainsong", true)
}

/// The text of an error, and its place.
type Wrong = (Span, String);

fn expand(arguments: TokenStream, item: TokenStream, path: &str, is_test: bool) -> TokenStream {
    let made = Function::new(item.clone())
        .and_then(|function| Ok(function.expand(Settings::new(arguments, path)?, is_test)));
    match made {
        Ok(made) => made,
        // The function stays, so that this is the only error.
        Err((span, text)) => {
            let mut out = parse("::std::compile_error!");
            let text = TokenTree::from(Literal::string(&text));
            out.extend([group(Delimiter::Brace, text.into())]);
            let at = |mut token: TokenTree| {
                token.set_span(span);
                token
            };
            let mut out: TokenStream = out.into_iter().map(at).collect();
            out.extend(item);
            out
        }
    }
}

/// The arguments of the attribute.
struct Settings {
    /// The path of plainsong.
    path: TokenStream,
    /// The calls on the runtime's builder.
    calls: TokenStream,
}

impl Settings {
    fn new(arguments: TokenStream, path: &str) -> Result<Self, Wrong> {
        let mut settings = Self { path: parse(path), calls: TokenStream::new() };
        let mut tokens = arguments.into_iter().peekable();
        while let Some(name) = tokens.next() {
            let span = name.span();
            let has_value =
                matches!(tokens.next(), Some(TokenTree::Punct(p)) if p.as_char() == '=');
            let is_comma =
                |token: &TokenTree| matches!(token, TokenTree::Punct(p) if p.as_char() == ',');
            let mut value = TokenStream::new();
            while let Some(token) = tokens.next_if(|token| !is_comma(token)) {
                value.extend([token]);
            }
            tokens.next();
            if !has_value || value.is_empty() {
                return Err((span, format!("`{name}` needs a value: write `{name} = …`")));
            }
            match name.to_string().as_str() {
                name @ ("workers" | "stack_size") => {
                    settings.calls.extend(parse(&format!(".{name}")));
                    settings.calls.extend([group(Delimiter::Parenthesis, value)]);
                }
                "crate" => settings.path = value,
                name => {
                    return Err((
                        span,
                        format!(
                            "there is no argument `{name}`: there are `workers`, `stack_size` and `crate`"
                        ),
                    ));
                }
            }
        }
        Ok(settings)
    }
}

/// A function without arguments.
struct Function {
    /// Attributes and visibility.
    before: TokenStream,
    /// From `fn` to the result.
    head: TokenStream,
    name: Ident,
    body: Group,
}

impl Function {
    fn new(item: TokenStream) -> Result<Self, Wrong> {
        let mut tokens: Vec<_> = item.into_iter().collect();
        let wrong = "this attribute is for a function without arguments: `fn main() { … }`";
        let wrong = |token: Option<&TokenTree>| {
            (token.map_or_else(Span::call_site, TokenTree::span), wrong.to_owned())
        };
        let body = match tokens.pop() {
            Some(TokenTree::Group(body)) if body.delimiter() == Delimiter::Brace => body,
            other => return Err(wrong(other.as_ref())),
        };
        let is_word = |token: &TokenTree, word| matches!(token, TokenTree::Ident(it) if it.to_string() == word);
        let start =
            tokens.iter().position(|token| is_word(token, "fn")).ok_or_else(|| wrong(None))?;
        for token in &tokens[..start] {
            for word in ["async", "unsafe", "extern", "const"] {
                if is_word(token, word) {
                    return Err((
                        token.span(),
                        format!("a coroutine's function is an ordinary one: take `{word}` away"),
                    ));
                }
            }
        }
        let head = tokens.split_off(start);
        let name = match head.get(1) {
            Some(TokenTree::Ident(name)) => name.clone(),
            other => return Err(wrong(other)),
        };
        match head.get(2) {
            Some(TokenTree::Group(arguments)) if arguments.stream().is_empty() => {}
            other => return Err(wrong(other)),
        }
        let (before, head) = (tokens.into_iter().collect(), head.into_iter().collect());
        Ok(Self { before, head, name, body })
    }

    /// The function, with a body that runs the old one.
    fn expand(self, settings: Settings, is_test: bool) -> TokenStream {
        let mut body = self.head.clone();
        body.extend([TokenTree::from(self.body)]);
        body.extend(settings.path);
        body.extend(parse("::Runtime::builder()"));
        body.extend(settings.calls);
        body.extend(parse(".build().unwrap_or_else(|error| ::std::panic!(\"{}\", error)).run"));
        body.extend([group(Delimiter::Parenthesis, TokenTree::from(self.name).into())]);
        let mut out = TokenStream::new();
        if is_test {
            out.extend(parse("#[::std::prelude::v1::test]"));
        }
        out.extend(self.before);
        out.extend(self.head);
        out.extend([group(Delimiter::Brace, body)]);
        out
    }
}

/// Rust source, which is one of this file's constants.
fn parse(source: &str) -> TokenStream {
    source.parse().expect("it is Rust")
}

fn group(delimiter: Delimiter, content: TokenStream) -> TokenTree {
    Group::new(delimiter, content).into()
}
