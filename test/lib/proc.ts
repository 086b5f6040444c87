// Looking at other processes, whose threads and descriptors may be gone before we come to them.

/** What a look into /proc gives, or something else where what is looked at is gone meanwhile. */
export function unlessGone<T>(look: () => T, otherwise: T): T {
  try {
    return look();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return otherwise;
    throw error;
  }
}
