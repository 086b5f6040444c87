// Names of base files with several that the guest has hidden: what links/ says of them, in memory. Found by the base's
// file, and by the name.
import { type BaseFileKey, type Birth, keyText, ofFile, parseKey } from './base-file-key.ts';
import { NO_NUMBER } from './node.ts';

export interface HiddenFile extends BaseFileKey {
  /** Path in the layer by pathHash of the base's path; '': links/ has it. None: they are in view again, or gone. */
  names: Map<string, string>;
  /** ctime that the file had when all of these were seen to be names of it; NO_NUMBER: not since the start. */
  ctimeSec: number;
  ctimeNsec: number;
}

/** The name in links/ that stands for a hidden one, by its pathHash. */
export function hiddenFile(key: BaseFileKey, hash: string): string {
  return `${keyText(key)}~${hash}`;
}

/** What such a name says; null: it is none. */
export function parseHiddenFile(file: string): { key: BaseFileKey; hash: string } | null {
  const [, text = '', hash = ''] = /^(.*)~([0-9a-f]{16})$/.exec(file) ?? [];
  const key = parseKey(text);
  return key === null ? null : { key, hash };
}

export class HiddenNames {
  /** By inode number in the base, as in HardLinks. */
  readonly #byFile = new Map<number, HiddenFile[]>();
  readonly #byName = new Map<string, HiddenFile>();

  get isEmpty(): boolean {
    return this.#byFile.size === 0;
  }

  /** So many names are known. */
  get size(): number {
    return this.#byName.size;
  }

  /** Of a file of the base. */
  find(identity: string, layer: number, ino: number, birth: Birth): HiddenFile | undefined {
    return ofFile(this.#byFile.get(ino), identity, layer, birth);
  }

  /** The file whose hidden name this is. */
  at(hash: string): HiddenFile | undefined {
    return this.#byName.get(hash);
  }

  /** A name that is not known yet. */
  add(key: BaseFileKey, hash: string, path: string): HiddenFile {
    const { identity, layer, ino, btimeSec, btimeNsec } = key;
    let file = this.find(identity, layer, ino, key);
    if (file === undefined) {
      const names = new Map<string, string>();
      file = { identity, layer, ino, btimeSec, btimeNsec, names, ctimeSec: NO_NUMBER, ctimeNsec: 0 };
      this.#byFile.set(ino, [...(this.#byFile.get(ino) ?? []), file]);
    }
    file.names.set(hash, path);
    this.#byName.set(hash, file);
    return file;
  }

  /** The file stays: that it has no hidden names is known, too. */
  delete(file: HiddenFile, hash: string): void {
    this.#byName.delete(hash);
    file.names.delete(hash);
  }
}
