// Checkers: what a line merge made must still be of its type. A checker has a say only where both inputs pass it
// (a JSON with comments stays mergeable), so a check that is too strict costs a conflict at worst where a merge broke
// something. YAML and INI are not checked: INI may repeat keys on purpose (systemd), YAML needs a parser.
// XML is checked for balanced tags only.

type Checker = (text: string) => string | null;

const checkers: { match: RegExp; check: Checker }[] = [
  { match: /\.(?:json|webmanifest|geojson)$/i, check: checkJson },
  { match: /\.(?:xml|svg|xsl|xslt|xhtml|plist|policy|rng|xsd)$/i, check: checkXml },
];

/** Why the result of a merge is not to be used; null: nothing is known against it. `inputs`: overlay and base. */
export function checkMerged(path: string, merged: Uint8Array, inputs: readonly Uint8Array[]): string | null {
  const found = checkers.find((checker) => checker.match.test(path));
  if (found === undefined) return null;
  const verdict = found.check(textOf(merged));
  if (verdict === null || inputs.some((input) => found.check(textOf(input)) !== null)) return null;
  return verdict;
}

/** latin1: no check here depends on more than ASCII, and nothing is lost. */
function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

function checkJson(text: string): string | null {
  const body = text.startsWith('\xef\xbb\xbf') ? text.slice(3) : text;
  try {
    JSON.parse(body);
  } catch (error) {
    if (error instanceof SyntaxError) return 'not JSON any more';
    throw error;
  }
  const twice = repeatedKey(body);
  return twice === null ? null : `the key ${twice} is there twice`;
}

/** Of a text that parses: a key that one object has twice (two sides that add the same one). */
function repeatedKey(json: string): string | null {
  const open: (Set<string> | null)[] = [];
  for (let at = 0; at < json.length; at++) {
    const char = json[at];
    if (char === '{') open.push(new Set());
    else if (char === '[') open.push(null);
    else if (char === '}' || char === ']') open.pop();
    else if (char === '"') {
      const end = stringEnd(json, at);
      const keys = open.at(-1);
      if (keys && json[afterSpace(json, end)] === ':') {
        const key = json.slice(at, end);
        if (keys.has(key)) return key;
        keys.add(key);
      }
      at = end - 1;
    }
  }
  return null;
}

function stringEnd(json: string, start: number): number {
  let at = start + 1;
  while (at < json.length && json[at] !== '"') at += json[at] === '\\' ? 2 : 1;
  return at + 1;
}

function afterSpace(json: string, start: number): number {
  let at = start;
  while (/^\s$/.test(json[at] ?? '')) at++;
  return at;
}

const xmlAsides: readonly [start: string, end: string][] = [
  ['<!--', '-->'],
  ['<![CDATA[', ']]>'],
  ['<?', '?>'],
];

/** By hand and not by a pattern: a guest's file must not make it backtrack. */
function checkXml(text: string): string | null {
  const open: string[] = [];
  let roots = 0;
  for (let at = text.indexOf('<'); at >= 0; at = text.indexOf('<', at)) {
    const aside = xmlAsides.find(([start]) => text.startsWith(start, at));
    const end = aside === undefined ? tagEnd(text, at) : text.indexOf(aside[1], at + aside[0].length);
    if (end < 0) return 'something in it has no end';
    const tag = aside === undefined ? text.slice(at + 1, end) : '!';
    at = end + 1;
    if (tag.startsWith('!')) continue;
    const name = /^\/?([^\s/]*)/.exec(tag)?.[1] ?? '';
    if (tag.startsWith('/')) {
      if (open.pop() !== name) return `</${name}> closes nothing that is open`;
      continue;
    }
    if (open.length === 0) roots++;
    if (!tag.endsWith('/')) open.push(name);
  }
  if (open.length > 0) return `<${open.at(-1)}> is not closed`;
  return roots === 1 ? null : 'not one element at the top';
}

/** Where the tag or declaration that starts at `start` has its >; quotes and a [] of a declaration may hold others. */
function tagEnd(text: string, start: number): number {
  let depth = 0;
  for (let at = start + 1; at < text.length; at++) {
    const char = text[at];
    if (char === '"' || char === "'") {
      at = text.indexOf(char, at + 1);
      if (at < 0) return -1;
    } else if (char === '[') depth++;
    else if (char === ']') depth--;
    else if (char === '>' && depth <= 0) return at;
  }
  return -1;
}
