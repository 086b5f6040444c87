// The one error type of the file system. Expected misses are returned as negative errnos, not thrown;
// FsError is for what a caller cannot be expected to check (damage, refusal, misuse of an interface).

export class FsError extends Error {
  readonly errno: number;

  /** `errno` is a positive Linux errno; `message` one line for a person; `cause` what led here. */
  constructor(errno: number, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'FsError';
    this.errno = errno;
  }
}

/** Where anything that was thrown comes from, in one line. */
export function stackOf(error: unknown): string {
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return text.replace(/\s*\n\s*/g, ' | ');
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
