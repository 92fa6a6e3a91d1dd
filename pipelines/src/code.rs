//! The stable codes of what can be wrong, and the page that explains each.
//!
//! A code is never reused and its number never changes. P0xx: the text as YAML. P1xx: keys and kinds
//! of value. P2xx: values of jobs and the graph. P3xx: deploys.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($code:ident $title:literal;)*) => {
        /// What is wrong, as a stable code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Code {
            $(#[doc = $title] $code,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Self] = &[$(Self::$code),*];

            /// The code as text, `P203`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$code => stringify!($code)),* }
            }

            /// What it is about, in a few words.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$code => $title),* }
            }

            /// The page that explains it, as Markdown.
            #[must_use]
            pub const fn page(self) -> &'static str {
                match self {
                    $(Self::$code => include_str!(concat!("pages/", stringify!($code), ".md"))),*
                }
            }
        }
    };
}

codes! {
    P001 "the file is empty";
    P002 "not YAML";
    P003 "a tab in the indentation";
    P004 "the file is too large";
    P005 "nested too deeply";
    P006 "too many values";
    P007 "a key stands twice";
    P008 "the file is not a map";
    P009 "a key is not text";
    P010 "a tag";
    P011 "an alias without its anchor";
    P012 "more than one document";
    P013 "not UTF-8";
    P014 "no pipeline file";
    P015 "too many problems";
    P016 "a merge of something that is no map";
    P101 "an unknown key";
    P102 "the wrong kind of value";
    P103 "a key is missing";
    P104 "nothing where something is needed";
    P105 "two keys that exclude each other";
    P106 "too many of something";
    P201 "a name that can't be used";
    P202 "a name is used twice";
    P203 "needs something that does not exist";
    P204 "needs itself";
    P205 "a cycle";
    P206 "a secret's name";
    P207 "a variable's name";
    P208 "an image's name";
    P209 "a duration";
    P210 "a number out of bounds";
    P211 "a path outside of the workspace";
    P212 "a service's host name";
    P213 "text that can't be given to a process";
    P214 "a label";
    P215 "an unknown variable";
    P216 "a variable inside a script";
    P217 "a branch pattern";
    P218 "a secret and a variable of one name";
    P219 "something stands twice in a list";
    P301 "a target that is not environment/service";
    P302 "a release that no needed job keeps";
    P303 "a release that several jobs keep";
    P304 "a canary step";
    P305 "canary weights that don't grow";
    P306 "a rolling batch";
    P307 "a health limit";
    P308 "what follows a broken limit";
    P309 "two deploys to one place";
    P310 "a deploy for pull requests";
    P311 "limits that nothing judges";
    P312 "a canary that takes too long";
}

/// The page that explains a code such as `P203`, as Markdown; upper or lower case.
#[must_use]
pub fn explain(code: &str) -> Option<&'static str> {
    code.to_ascii_uppercase().parse::<Code>().ok().map(Code::page)
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is no code of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownCode(pub String);

impl fmt::Display for UnknownCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no code {:?}; codes look like P203", self.0)
    }
}

impl std::error::Error for UnknownCode {}

impl FromStr for Code {
    type Err = UnknownCode;
    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let found = Self::ALL.iter().copied().find(|code| code.as_str() == text);
        found.ok_or_else(|| UnknownCode(text.to_owned()))
    }
}
