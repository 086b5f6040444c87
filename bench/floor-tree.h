/* The tree that floor.c serves: nodes, names and bytes, all in memory, read from a directory once. Bytes of a small
 * file lie in a buffer; of a larger one, and of what is open for writing, in a memfd that the kernel reads and writes
 * by itself (passthrough), where it can. Names of a directory have slots, whose numbers are the offsets of listings. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

/* As Kasane has it: of smaller files the kernel keeps the bytes, larger ones it reads past the server. */
#define SMALL 65536

struct entry {
  struct entry *next; /* of those with this hash */
  struct node *dir, *node;
  uint32_t hash, slot, length;
  char name[];
};

/* Its address is its nodeid. */
struct node {
  struct fuse_attr attr;
  uint64_t lookups;
  struct node *parent;
  struct entry **slots; /* of a directory; NULL where a name has gone */
  uint32_t used, room, names;
  uint32_t opens;
  char *bytes; /* of a file, unless it has an fd; of a symlink */
  uint64_t capacity;
  struct timespec seen; /* when the fd was last written to, as far as is known */
  int fd, backing;      /* -1: none; 0: the kernel was not given it */
  char lent;            /* the fd is not only written to: it may be mapped, and is never another file's */
  char stored;          /* the kernel has the bytes */
};

static _Noreturn void fail(const char *what) {
  fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void *must(void *memory) {
  if (!memory) fail("memory");
  return memory;
}

static struct timespec now(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME_COARSE, &t);
  return t;
}

static void set_mtime(struct fuse_attr *a, struct timespec t) { a->mtime = t.tv_sec, a->mtimensec = t.tv_nsec; }

static void touch(struct fuse_attr *a, int content) {
  struct timespec t = now();
  a->ctime = t.tv_sec, a->ctimensec = t.tv_nsec;
  if (content) set_mtime(a, t);
}

static void set_size(struct node *node, uint64_t size) {
  node->attr.size = size;
  node->attr.blocks = (size + 511) / 512;
}

/* ---- nodes and names ---- */

/* Of what is made; what was loaded keeps its own, which programs remember. */
static uint64_t last_ino = 1ull << 40;

static struct node *new_node(uint32_t mode, uint32_t uid, uint32_t gid) {
  struct node *node = must(calloc(1, sizeof *node));
  node->attr = (struct fuse_attr){.ino = ++last_ino, .mode = mode, .uid = uid, .gid = gid, .blksize = 4096};
  node->attr.nlink = S_ISDIR(mode) ? 2 : 0;
  node->fd = -1;
  touch(&node->attr, 1);
  node->attr.atime = node->attr.mtime, node->attr.atimensec = node->attr.mtimensec;
  return node;
}

static struct entry **buckets;
static uint64_t mask, entries;

static uint32_t hash_of(const struct node *dir, const char *name, uint32_t length) {
  uint64_t hash = (uintptr_t)dir * 0x9e3779b97f4a7c15u;
  for (uint32_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)name[i]) * 0x100000001b3u;
  return (uint32_t)(hash ^ hash >> 32);
}

static void grow_table(void) {
  uint64_t size = mask ? 2 * (mask + 1) : 1 << 16;
  struct entry **wider = must(calloc(size, sizeof *wider));
  for (uint64_t i = 0; mask && i <= mask; i++) {
    for (struct entry *e = buckets[i], *next; e; e = next) {
      next = e->next;
      e->next = wider[e->hash & (size - 1)];
      wider[e->hash & (size - 1)] = e;
    }
  }
  free(buckets);
  buckets = wider;
  mask = size - 1;
}

static struct entry *find(const struct node *dir, const char *name) {
  uint32_t length = strlen(name), hash = hash_of(dir, name, length);
  for (struct entry *e = buckets[hash & mask]; e; e = e->next) {
    if (e->hash == hash && e->dir == dir && e->length == length && !memcmp(e->name, name, length)) return e;
  }
  return NULL;
}

/* Only of a directory that nobody lists: slots are offsets. */
static void close_up(struct node *dir) {
  uint32_t used = 0;
  for (uint32_t i = 0; i < dir->used; i++) {
    if (!dir->slots[i]) continue;
    dir->slots[used] = dir->slots[i];
    dir->slots[used]->slot = used;
    used++;
  }
  dir->used = used;
}

static void add_name(struct node *dir, const char *name, struct node *node) {
  uint32_t length = strlen(name), hash = hash_of(dir, name, length);
  struct entry *e = must(malloc(sizeof *e + length + 1));
  if (++entries > mask) grow_table();
  if (dir->used == dir->room && !dir->opens && dir->names * 2 <= dir->used) close_up(dir);
  if (dir->used == dir->room) {
    dir->room = dir->room ? 2 * dir->room : 8;
    dir->slots = must(realloc(dir->slots, dir->room * sizeof *dir->slots));
  }
  e->dir = dir, e->node = node, e->hash = hash, e->slot = dir->used, e->length = length;
  memcpy(e->name, name, length + 1);
  e->next = buckets[hash & mask];
  buckets[hash & mask] = e;
  dir->slots[dir->used++] = e;
  dir->names++;
  node->attr.nlink++;
  if (S_ISDIR(node->attr.mode)) {
    node->attr.nlink = 2, node->parent = dir;
    for (uint32_t i = 0; i < node->used; i++) node->attr.nlink += node->slots[i] && S_ISDIR(node->slots[i]->node->attr.mode);
    dir->attr.nlink++;
  }
}

static void remove_name(struct entry *e) {
  struct entry **at = &buckets[e->hash & mask];
  while (*at != e) at = &(*at)->next;
  *at = e->next;
  e->dir->slots[e->slot] = NULL;
  e->dir->names--;
  entries--;
  if (S_ISDIR(e->node->attr.mode)) e->dir->attr.nlink--, e->node->attr.nlink = 0;
  else e->node->attr.nlink--;
  free(e);
}

/* ---- bytes ---- */

static int device = -1;
static int has_passthrough;

/* struct fuse_backing_map and its two ioctls, which older headers lack. */
struct backing_map {
  int32_t fd;
  uint32_t flags;
  uint64_t padding;
};
#define BACKING_OPEN _IOW(FUSE_DEV_IOC_MAGIC, 1, struct backing_map)
#define BACKING_CLOSE _IOW(FUSE_DEV_IOC_MAGIC, 2, uint32_t)

/* Empty memfds that the kernel knows: to make one is not what a row is about. */
#define POOL 64
static struct lending {
  int fd, backing;
  struct timespec seen;
} pool[POOL];
static int in_pool;

static struct timespec written_at(int fd, uint64_t *size) {
  struct stat st;
  if (fstat(fd, &st) < 0) fail("fstat");
  if (size) *size = st.st_size;
  return st.st_mtim;
}

static struct lending borrow(void) {
  if (in_pool > 0) return pool[--in_pool];
  struct lending one = {.fd = memfd_create("floor", MFD_CLOEXEC)};
  if (one.fd < 0) fail("memfd_create");
  struct backing_map map = {.fd = one.fd};
  int id = has_passthrough ? ioctl(device, BACKING_OPEN, &map) : 0;
  if (id < 0) fail("the kernel refuses a file for passthrough");
  one.backing = id;
  one.seen = written_at(one.fd, NULL);
  return one;
}

static void give_up(struct node *node) {
  if (node->backing > 0) ioctl(device, BACKING_CLOSE, &node->backing);
  close(node->fd);
  node->fd = -1;
  node->backing = 0;
}

/* What the kernel has written past us. */
static void learn(struct node *node) {
  uint64_t size;
  struct timespec at;
  if (node->fd < 0) return;
  at = written_at(node->fd, &size);
  set_size(node, size);
  if (at.tv_sec == node->seen.tv_sec && at.tv_nsec == node->seen.tv_nsec) return;
  node->seen = at;
  set_mtime(&node->attr, at);
  node->attr.ctime = at.tv_sec, node->attr.ctimensec = at.tv_nsec;
}

static int64_t get(struct node *node, char *to, uint64_t at, uint64_t length) {
  if (node->fd >= 0) return pread(node->fd, to, length, at);
  if (at >= node->attr.size) return 0;
  if (length > node->attr.size - at) length = node->attr.size - at;
  memcpy(to, node->bytes + at, length);
  return length;
}

static void resize(struct node *node, uint64_t size) {
  if (node->fd >= 0) {
    if (ftruncate(node->fd, size) < 0) fail("ftruncate");
    node->seen = written_at(node->fd, NULL);
  } else {
    if (size > node->capacity) {
      node->capacity = size > 2 * node->capacity ? size : 2 * node->capacity;
      node->bytes = must(realloc(node->bytes, node->capacity));
    }
    if (size > node->attr.size) memset(node->bytes + node->attr.size, 0, size - node->attr.size);
  }
  set_size(node, size);
}

static int64_t put(struct node *node, const char *from, uint64_t at, uint64_t length) {
  int64_t result = length;
  if (node->fd >= 0) {
    result = pwrite(node->fd, from, length, at);
    learn(node);
  } else {
    if (at + length > node->attr.size) resize(node, at + length);
    memcpy(node->bytes + at, from, length);
    touch(&node->attr, 1);
  }
  return result;
}

/* From a buffer to a memfd: nobody has it open. */
static void to_memfd(struct node *node) {
  struct lending one = borrow();
  if (node->attr.size > 0 && pwrite(one.fd, node->bytes, node->attr.size, 0) < 0) fail("pwrite");
  node->seen = node->attr.size > 0 ? written_at(one.fd, NULL) : one.seen;
  free(node->bytes);
  node->bytes = NULL;
  node->capacity = 0;
  node->fd = one.fd;
  node->backing = one.backing;
  node->lent = node->stored = 0;
}

/* Back into a buffer, where it is small, after the last close. */
static void to_bytes(struct node *node) {
  learn(node);
  if (node->lent || node->attr.size > SMALL) return;
  struct lending one = {node->fd, node->backing, node->seen};
  if (node->attr.size > 0) {
    char *bytes = must(malloc(node->attr.size));
    if (get(node, bytes, 0, node->attr.size) < 0 || ftruncate(one.fd, 0) < 0) fail("memfd");
    one.seen = written_at(one.fd, NULL);
    node->bytes = bytes;
    node->capacity = node->attr.size;
  }
  if (in_pool == POOL) {
    give_up(node);
    return;
  }
  node->fd = -1;
  node->backing = 0;
  pool[in_pool++] = one;
}

static int may_go(const struct node *node) { return node->attr.nlink == 0 && node->lookups == 0 && node->opens == 0; }

static void forget_node(struct node *node) {
  if (!may_go(node)) return;
  if (node->fd >= 0) give_up(node);
  free(node->bytes);
  free(node->slots);
  free(node);
}

/* ---- loading ---- */

static struct linked {
  struct linked *next;
  ino_t ino;
  struct node *node;
} *linked;

static void take_stat(struct node *node, const struct stat *st) {
  struct fuse_attr *a = &node->attr;
  a->ino = st->st_ino, a->mode = st->st_mode, a->uid = st->st_uid, a->gid = st->st_gid;
  a->atime = st->st_atim.tv_sec, a->atimensec = st->st_atim.tv_nsec;
  a->mtime = st->st_mtim.tv_sec, a->mtimensec = st->st_mtim.tv_nsec;
  a->ctime = st->st_ctim.tv_sec, a->ctimensec = st->st_ctim.tv_nsec;
  a->rdev = (minor(st->st_rdev) & 0xff) | major(st->st_rdev) << 8 | (minor(st->st_rdev) & ~0xffu) << 12;
}

static void load_bytes(struct node *node, int at, const char *name, const struct stat *st) {
  int64_t got, done = 0;
  int fd = openat(at, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) fail(name);
  resize(node, st->st_size);
  while ((got = read(fd, node->bytes + done, st->st_size - done)) > 0) done += got;
  if (got < 0) fail(name);
  close(fd);
}

static struct node *load_one(int at, const char *name, const struct stat *st) {
  if (!S_ISDIR(st->st_mode) && st->st_nlink > 1) {
    for (struct linked *one = linked; one; one = one->next) if (one->ino == st->st_ino) return one->node;
  }
  struct node *node = new_node(st->st_mode, st->st_uid, st->st_gid);
  if (!S_ISDIR(st->st_mode) && st->st_nlink > 1) {
    struct linked *one = must(malloc(sizeof *one));
    *one = (struct linked){linked, st->st_ino, node};
    linked = one;
  }
  if (S_ISREG(st->st_mode)) load_bytes(node, at, name, st);
  if (S_ISLNK(st->st_mode)) {
    node->bytes = must(malloc(st->st_size + 1));
    if (readlinkat(at, name, node->bytes, st->st_size + 1) != st->st_size) fail(name);
    set_size(node, st->st_size);
  }
  take_stat(node, st);
  return node;
}

static void load(struct node *into, int at, const char *path) {
  struct stat st;
  int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  DIR *dir = fd < 0 ? NULL : fdopendir(fd);
  if (!dir || fstat(fd, &st) < 0) fail(path);
  take_stat(into, &st);
  for (struct dirent *found; (found = readdir(dir));) {
    if (!strcmp(found->d_name, ".") || !strcmp(found->d_name, "..")) continue;
    if (fstatat(fd, found->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) fail(found->d_name);
    struct node *node = load_one(fd, found->d_name, &st);
    add_name(into, found->d_name, node);
    if (S_ISDIR(st.st_mode)) load(node, fd, found->d_name);
  }
  closedir(dir);
}
