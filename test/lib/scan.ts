// Plain text scanning of sources for the tidy test. Knows as much of TypeScript as that needs: comments,
// strings, templates, and the house's way of writing functions.
import * as path from 'node:path';

/** Lowest first; folders of one row never import each other. main.ts stands above all. */
export const layers: readonly (readonly string[])[] = [
  ['lib'],
  ['sys'],
  ['fuse', 'branch', 'versions', 'merge', 'control', 'guest'],
  ['union'],
  ['frontend'],
  ['daemon'],
  ['cli'],
];

export function layerOf(file: string): { folder: string; rank: number } | null {
  const folder = file.split('/')[1] as string;
  if (file === 'src/main.ts') return { folder, rank: layers.length };
  const rank = layers.findIndex((group) => group.includes(folder));
  return rank < 0 ? null : { folder, rank };
}

const quoted = /'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"/y;
const comment = /\/\/[^\n]*|\/\*[\s\S]*?\*\//y;
const regex = /\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\/\w*/y;
const chunk = /(?:\\[\s\S]|\$(?!\{)|[^\\`$])*/y;
/** After one of these a slash begins a regular expression. */
const beforeRegex = /(?:^|[=(,:!&|?{};[\n]|=>|\breturn)\s*$/;

/** The same length and lines; comments become blanks, and with `strings` what is in strings, too. */
export function withoutComments(text: string, strings = false): string {
  const blank = (found: string) => found.replace(/[^\n]/g, ' ');
  /** Open braces within each ${…} that we are in. */
  const templates: number[] = [];
  let out = '';
  const take = (pattern: RegExp, blanked: boolean): boolean => {
    pattern.lastIndex = out.length;
    const found = pattern.exec(text)?.[0];
    if (found === undefined) return false;
    out += blanked ? blank(found) : found;
    return true;
  };
  const template = () => {
    take(chunk, strings);
    if (text.startsWith('${', out.length)) templates.push(0);
    out += text.startsWith('${', out.length) ? blank('${') : ' ';
  };
  while (out.length < text.length) {
    const char = text[out.length] as string;
    if (char === '/' && take(comment, true)) continue;
    if (char === '/' && beforeRegex.test(out.slice(-40)) && take(regex, strings)) continue;
    if ((char === "'" || char === '"') && take(quoted, strings)) continue;
    const depth = templates.at(-1);
    if (depth !== undefined && char === '{') templates[templates.length - 1] = depth + 1;
    if (depth !== undefined && depth > 0 && char === '}') templates[templates.length - 1] = depth - 1;
    const closes = depth === 0 && char === '}';
    if (closes) templates.pop();
    out += closes || char === '`' ? ' ' : char;
    if (closes || char === '`') template();
  }
  return out;
}

/** Files of this repository that `file` loads, workers and dynamic imports included. */
export function importsOf(file: string, text: string): string[] {
  const plain = withoutComments(text);
  const pattern = /(?:\bfrom\s*|\bimport\s*\(?\s*|\bnew URL\(\s*)(['"])(\.{1,2}\/[^'"]+)\1/g;
  return [...plain.matchAll(pattern)].map((match) =>
    path.posix.join(path.posix.dirname(file), (match[2] as string).replace(/\.js$/, '.ts')),
  );
}

/** Each cycle once, as "a -> b -> a". */
export function cyclesIn(graph: ReadonlyMap<string, readonly string[]>): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const visit = (file: string, trail: string[]) => {
    const at = trail.indexOf(file);
    if (at >= 0) found.push([...trail.slice(at), file].join(' -> '));
    if (at >= 0 || done.has(file)) return;
    for (const next of graph.get(file) ?? []) visit(next, [...trail, file]);
    done.add(file);
  };
  for (const file of graph.keys()) visit(file, []);
  return found;
}

function lineAt(text: string, index: number): number {
  return text.slice(0, index).split('\n').length;
}

/** Lines with a catch, or a .catch(), that does nothing. */
export function emptyCatches(text: string): number[] {
  const plain = withoutComments(text);
  const pattern =
    /\bcatch\s*(\([^)]*\))?\s*\{\s*\}|\.catch\(\s*\(?\w*\)?\s*=>\s*(\{\s*\}|undefined|null)\s*\)/g;
  return [...blankStrings(plain).matchAll(pattern)].map((match) => lineAt(text, match.index));
}

/** Lines that skip, focus or put off tests by hand. */
export function skipsWithoutReason(text: string): number[] {
  const pattern = /\b(test|it|describe)\.(skip|only|todo|skipIf|runIf|fails)\b/g;
  return [...blankStrings(text).matchAll(pattern)].map((match) => lineAt(text, match.index));
}

function blankStrings(text: string): string {
  return withoutComments(text, true);
}

/** Named functions and methods at the margin of a file or class, in the house's formatting. */
export function functionLengths(text: string): { name: string; line: number; lines: number }[] {
  const lines = blankStrings(text).split('\n');
  const found: { name: string; line: number; lines: number }[] = [];
  const head =
    /^( {0,2})(?:export )?(?:async )?(?:static )?(?:(?:function\*? )(\w+)|(?:get |set )?(#?\w+))\s*[<(]/;
  const notNames = new Set(['if', 'for', 'while', 'switch', 'return', 'catch', 'import', 'super', 'throw']);
  for (const [index, line] of lines.entries()) {
    const match = head.exec(line);
    const name = match?.[2] ?? match?.[3];
    if (!match || name === undefined || notNames.has(name)) continue;
    if (match[2] === undefined && match[1] === '') continue;
    const end = lines.findIndex((other, at) => at >= index && other.startsWith(`${match[1]}}`));
    if (end < 0 || /;\s*$/.test(line)) continue;
    found.push({ name, line: index + 1, lines: end - index + 1 });
  }
  return found;
}
