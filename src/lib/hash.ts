// The one content hash: SHA-256 cut to 128 bits, in hexadecimal. Collisions matter (equal hashes are taken
// for equal bytes), so it is a cryptographic one; 128 bits keep an origin inside the inode.
import * as crypto from 'node:crypto';

/** 32 hexadecimal digits. In one call: an object for it costs three times as much, where the bytes are few. */
export function hash128(bytes: Uint8Array): string {
  return crypto.hash('sha256', bytes, 'hex').slice(0, 32);
}

/** The same of a text in ASCII, such as the name of a version, which each first open of a file asks for. */
export function hash128Text(text: string): string {
  return crypto.hash('sha256', text, 'hex').slice(0, 32);
}

/** For contents that come in pieces: `update` each, then `digest` once. */
export function hash128Stream(): { update(part: Uint8Array): void; digest(): string } {
  const hash = crypto.createHash('sha256');
  return {
    update: (part) => void hash.update(part),
    digest: () => hash.digest('hex').slice(0, 32),
  };
}
