// Names and paths are bytes. Inside Kasane they are latin1 strings (one character, one byte), so that no
// name is lost or merged by decoding. A path is relative to the root of its tree; the root is ''.

/** The bytes of a user's string (command line, JSON) as an inner name. */
export function fromUtf8(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1');
}

/** The inner name as text for a person; invalid UTF-8 is escaped, so it is readable but not reversible. */
export function toDisplay(name: string): string {
  return escapeName(name);
}

export function joinPath(dir: string, name: string): string {
  return dir === '' ? name : `${dir}/${name}`;
}

export function parentPath(path: string): string {
  const slash = path.lastIndexOf('/');
  return slash < 0 ? '' : path.slice(0, slash);
}

export function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

const strictUtf8 = new TextDecoder('utf-8', { fatal: true });

/**
 * A path for a line of output: printable UTF-8 as it is, every other byte (control characters, backslash,
 * invalid UTF-8) as \xNN.
 */
export function escapeName(name: string): string {
  const bytes = Buffer.from(name, 'latin1');
  let out = '';
  let i = 0;
  while (i < bytes.length) {
    const first = bytes[i] as number;
    const length = first < 0x80 ? 1 : first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc0 ? 2 : 0;
    const text = length === 0 ? null : decode(bytes.subarray(i, i + length));
    if (text === null || text === '\\' || !/^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$/u.test(text)) {
      out += `\\x${first.toString(16).padStart(2, '0')}`;
      i += 1;
    } else {
      out += text;
      i += length;
    }
  }
  return out;
}

function decode(bytes: Uint8Array): string | null {
  try {
    return strictUtf8.decode(bytes);
  } catch (error) {
    if (error instanceof TypeError) return null;
    throw error;
  }
}

/** The inverse of escapeName: inner name of an escaped one. */
export function unescapeName(text: string): string {
  return fromUtf8(text).replace(/\\x([0-9a-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}
