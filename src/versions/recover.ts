// Opening the index in whatever state a crash, a disk or a person has left it. What LevelDB cannot open is
// moved aside, never deleted, and of its history is carried over what can still be read; the states of paths
// and the open conflicts are not, for the origins know them better.
import * as crypto from 'node:crypto';
import * as fs from 'node:fs';
import * as os from 'node:os';
import { Level } from 'level';
import { bytesOf, isOutOfRoom, makeDirectory, namesIn } from './files.ts';
import { type FormatFile, moveAside } from './format.ts';
import { LevelIndex, reason } from './level-index.ts';
import type { DamageList } from './record-store.ts';
import { checks, decodeAny, decodeRecord, encodeRecord, keys, prefixes } from './records.ts';

export interface OpenedIndex {
  index: LevelIndex;
  /** Where LevelDB's files are; '' in memory. */
  dir: string;
  /** There should have been one: the caller has to rebuild from the origins. */
  missing: boolean;
  /** Why it could not be used, a line each. */
  damaged: string[];
  /** After the index is closed. */
  cleanUp: () => void;
}

const indexName = 'index';

export async function openIndex(
  stateDir: string,
  format: FormatFile,
  damage: DamageList,
  isNew: boolean,
): Promise<OpenedIndex> {
  const dir = `${stateDir}/${indexName}`;
  const expected = format.now.indexId;
  const files = namesIn(dir);
  const state = { dir, missing: false, damaged: [] as string[], cleanUp: () => {} };
  let salvage = '';
  if (files.includes('CURRENT')) {
    const opened = await tryOpen(stateDir, expected, damage);
    if (opened.index !== null) {
      if (expected === '') format.write({ indexId: opened.id });
      return { ...state, missing: !opened.whole, index: opened.index };
    }
    state.damaged.push(opened.why);
    const aside = moveAside(stateDir, indexName);
    if (opened.salvage) salvage = aside;
  } else if (files.some((name) => /\.(ldb|sst|log)$/.test(name))) {
    state.damaged.push('the index has lost its file CURRENT');
    salvage = moveAside(stateDir, indexName);
  }
  state.missing = !isNew || state.damaged.length > 0;
  makeDirectory(dir);
  const index = await LevelIndex.open(levelLocation(stateDir, indexName), damage.report);
  if (salvage !== '') state.damaged.push(await carryOver(stateDir, salvage, index));
  const id = crypto.randomBytes(8).toString('hex');
  markIndex(index, id, !state.missing);
  format.write({ indexId: id });
  return { ...state, index };
}

interface Mark {
  id: string;
  /** false: it has been made in place of another one, and not been rebuilt yet. */
  whole: boolean;
}

/** The mark that tells this index from any other. */
export function markIndex(index: LevelIndex, id: string, whole: boolean): void {
  const key = keys.meta('index');
  index.put(key, encodeRecord(key, { id, whole } satisfies Mark));
}

interface Tried {
  index: LevelIndex | null;
  id: string;
  whole: boolean;
  why: string;
  /** It is this overlay's, as far as can be seen. */
  salvage: boolean;
}

async function tryOpen(stateDir: string, expected: string, damage: DamageList): Promise<Tried> {
  let index: LevelIndex;
  try {
    index = await LevelIndex.open(levelLocation(stateDir, indexName), damage.report);
  } catch (error) {
    // That is no damage: it is to stay where it is.
    if (isOutOfRoom(error)) throw error;
    const why = `the index cannot be opened: ${reason(error)}`;
    return { index: null, id: '', whole: false, why, salvage: true };
  }
  const key = keys.meta('index');
  const bytes = index.get(key);
  const mark = bytes === null ? null : decodeRecord<Mark>(key, bytes, checks.meta);
  const { id, whole } = mark !== null && 'value' in mark ? mark.value : { id: '', whole: false };
  if (id !== '' && (expected === '' || id === expected)) return { index, id, whole, why: '', salvage: false };
  await index.close();
  const why = id === '' ? 'the index has lost its mark' : 'the index is of another overlay, or an old copy';
  return { index: null, id, whole: false, why, salvage: id === '' };
}

const carried: ReadonlySet<string> = new Set([
  prefixes.event,
  prefixes.eventOfPath,
  prefixes.hash,
  prefixes.number,
  prefixes.intent,
  prefixes.version,
  prefixes.versionCount,
  prefixes.conflict,
]);

/** Copies what can be read of the history of a damaged index; returns a line on how that went. */
async function carryOver(stateDir: string, name: string, to: LevelIndex): Promise<string> {
  let kept = 0;
  let lost = 0;
  try {
    const location = levelLocation(stateDir, name);
    await repair(location);
    const from = await LevelIndex.open(location, () => {});
    try {
      for await (const [key, bytes] of from.range({ from: '', to: '\xff' })) {
        const decoded = decodeAny(key, bytes);
        if ('damage' in decoded) lost += 1;
        else if (carried.has(key.charAt(0)) && !isOpenConflict(key, decoded.value)) {
          to.put(key, bytes);
          kept += 1;
        }
      }
    } finally {
      await from.close();
    }
  } catch (error) {
    return `nothing more could be read of the damaged index: ${reason(error)}`;
  }
  return `${kept} records of its history were carried over${lost > 0 ? `, ${lost} could not be read` : ''}`;
}

function isOpenConflict(key: string, value: Record<string, unknown>): boolean {
  return key.startsWith(prefixes.conflict) && value.closed === null;
}

/** LevelDB's own: writes a manifest anew from the tables and logs that are there. */
function repair(location: string): Promise<void> {
  return (Level as unknown as { repair(location: string): Promise<void> }).repair(location);
}

/** Nothing is written to the overlay: LevelDB, which always writes, gets a copy elsewhere. */
export async function openIndexReadOnly(stateDir: string, damage: DamageList): Promise<OpenedIndex> {
  const dir = `${stateDir}/${indexName}`;
  const none = { dir: '', missing: false, damaged: [] as string[], cleanUp: () => {} };
  if (!namesIn(dir).includes('CURRENT')) return { ...none, index: LevelIndex.inMemory(damage.report) };
  const copy = fs.mkdtempSync(`${os.tmpdir()}/kasane-index-`);
  const cleanUp = () => fs.rmSync(copy, { recursive: true, force: true });
  try {
    for (const name of namesIn(dir)) {
      if (name === 'LOCK' || name === 'lost') continue;
      fs.copyFileSync(bytesOf(`${dir}/${name}`), `${copy}/${name}`);
    }
    return { ...none, dir, cleanUp, index: await LevelIndex.open(copy, damage.report) };
  } catch (error) {
    cleanUp();
    const damaged = [`the index cannot be opened: ${reason(error)}`];
    return { ...none, damaged, missing: true, index: LevelIndex.inMemory(damage.report) };
  }
}

/**
 * LevelDB takes a path as UTF-8. One that is none is reached through a descriptor of the state directory, which
 * stays open with the process: this happens once per mount, if ever.
 */
function levelLocation(stateDir: string, name: string): string {
  const bytes = bytesOf(stateDir);
  const text = bytes.toString('utf8');
  if (Buffer.from(text, 'utf8').equals(bytes)) return `${text}/${name}`;
  const fd = fs.openSync(bytes, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  return `/proc/self/fd/${fd}/${name}`;
}
