// The files that a run is told to read and to write. They are looked at before anything is measured: what cannot be
// written is to be known before twenty minutes have passed, not after.
import * as fs from 'node:fs';
import * as path from 'node:path';
import { UsageError } from './options.mjs';

const words = {
  ENOENT: 'no such file',
  ENOTDIR: 'part of the way is no directory',
  EISDIR: 'it is a directory',
  EACCES: 'permission denied',
  EPERM: 'not permitted',
  EROFS: 'the file system is read-only',
  ENOSPC: 'the file system is full',
};

const inWords = (error) => words[error.code] ?? error.message;

/** Throws what writing would: as root only a try tells. What is there stays as it is, and what was not is not there after. */
function tryToWrite(file) {
  const found = fs.statSync(file, { throwIfNoEntry: false });
  // Opening a pipe would wait for its reader.
  if (found && !found.isFile() && !found.isDirectory()) return fs.accessSync(file, fs.constants.W_OK);
  fs.closeSync(fs.openSync(file, 'a'));
  // By its true name: a symbolic link that led nowhere stays.
  if (!found) fs.unlinkSync(fs.realpathSync(file));
}

function whyNot(file, error) {
  const folder = path.dirname(path.resolve(file));
  if (error.code !== 'ENOENT') return inWords(error);
  return fs.existsSync(folder) ? 'no file can be made there' : `there is no directory ${folder}`;
}

/** Throws UsageError. */
export function checkWritable({ json, html }) {
  for (const [option, file] of Object.entries({ '--json': json, '--html': html })) {
    if (file === undefined) continue;
    try {
      tryToWrite(file);
    } catch (error) {
      throw new UsageError(`${option} ${file}: cannot be written: ${whyNot(file, error)}`);
    }
  }
  if (json !== undefined && html !== undefined && path.resolve(json) === path.resolve(html))
    throw new UsageError(`--json and --html are both ${json}: name two files`);
}

/** Throws UsageError. */
export function checkWhere(where) {
  const found = fs.statSync(where, { throwIfNoEntry: false });
  if (!found) throw new UsageError(`--where ${where}: no such directory`);
  if (!found.isDirectory()) throw new UsageError(`--where ${where}: is no directory`);
}

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

/** What the reports cannot do without. */
function isResult(value) {
  const objects = ['machine', 'peers', 'missing'];
  const lists = ['rows', 'noise', 'notes'];
  return (
    isObject(value) &&
    value.format === 1 &&
    objects.every((name) => isObject(value[name])) &&
    typeof value.machine.date === 'string' &&
    lists.every((name) => Array.isArray(value[name])) &&
    value.rows.every((row) => ['peers', 'ratios', 'failed'].every((name) => isObject(row?.[name]))) &&
    value.rows.every((row) => Array.isArray(row.goals))
  );
}

/** The result that an earlier run wrote. Throws UsageError. */
export function readResult(file) {
  const remedy = 'name a file that --json wrote';
  let text;
  try {
    text = fs.readFileSync(file, 'utf8');
  } catch (error) {
    throw new UsageError(`--from ${file}: cannot be read: ${inWords(error)}; ${remedy}`);
  }
  let result;
  try {
    result = JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new UsageError(`--from ${file}: is no JSON; ${remedy}`);
  }
  if (!isResult(result)) throw new UsageError(`--from ${file}: is no result of the bench; ${remedy}`);
  return result;
}

/** One that fails does not keep the others from being written; what failed comes back, a line each. */
export function writeEach(outputs) {
  return outputs.flatMap(([name, write]) => {
    try {
      write();
      return [];
    } catch (error) {
      return [`${name}: cannot be written: ${inWords(error)}`];
    }
  });
}
