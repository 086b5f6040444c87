/* The floor beneath every file system that one thread serves by /dev/fuse: it gets the requests that Kasane gets (the
 * same flags, times of validity, passthrough and spin) and answers them from memory, with no union, no disk and no
 * record of anything. What it takes is the kernel's, the client's and the machine's. Ours, and only measured with.
 *
 * floor SPIN AWAKE BASE MOUNTPOINT: reads BASE, mounts, and serves in the background until it is unmounted. SPIN: for how
 * many microseconds the device is read again before it is waited for; 0: not at all. AWAKE: 1: idle processors are kept
 * awake while requests follow each other closely.
 * What no row needs is missing: extended attributes are refused, locks are given to everybody, syncs do nothing. */
#include "floor-tree.h"
#include <linux/fs.h>
#include <poll.h>
#include <sys/mount.h>

#define MOST (1 << 20)
#define KEEP 60 /* seconds for which the kernel may keep what it is told */

/* Flags of flags2, and fields, that older headers lack. */
#define CREATE_SUPP_GROUP (1u << 2)
#define DIRECT_IO_ALLOW_MMAP (1u << 4)
#define PASSTHROUGH (1u << 5)
#define OPEN_PASSTHROUGH (1u << 7)
#define OPCODE_STATX 52
#define STATX_KNOWN 0x7ffu

struct statx_out {
  uint64_t valid;
  uint32_t valid_nsec, flags;
  uint64_t spare[2];
  uint32_t mask, blksize;
  uint64_t attributes;
  uint32_t nlink, uid, gid;
  uint16_t mode, padding;
  uint64_t ino, size, blocks, attributes_mask;
  struct {
    int64_t sec;
    uint32_t nsec, padding;
  } atime, btime, ctime, mtime;
  uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
  uint64_t spare2[14];
};
_Static_assert(sizeof(struct statx_out) == 288, "as the kernel has it");

static struct node *root;
static _Alignas(8) char in[MOST + 4096], out[MOST + 4096], copied[MOST];
static const struct fuse_in_header *const header = (struct fuse_in_header *)in;
static char *const body = in + sizeof(struct fuse_in_header);
static void *const answer = out + sizeof(struct fuse_out_header);

static struct node *node_of(uint64_t id) { return id == FUSE_ROOT_ID ? root : (struct node *)(uintptr_t)id; }

static void send_out(int error, uint32_t length, uint64_t unique) {
  *(struct fuse_out_header *)out = (struct fuse_out_header){sizeof(struct fuse_out_header) + length, error, unique};
  /* ENOENT: its client is gone. */
  if (write(device, out, sizeof(struct fuse_out_header) + length) < 0 && errno != ENOENT && errno != ENODEV) fail("reply");
}

/* ---- entries and attributes ---- */

static void fill_entry(struct fuse_entry_out *entry, struct node *node) {
  node->lookups++;
  *entry = (struct fuse_entry_out){(uintptr_t)node, 1, KEEP, KEEP, 0, 0, node->attr};
}

static int entry_of(struct node *node) {
  fill_entry(answer, node);
  return sizeof(struct fuse_entry_out);
}

static int attributes_of(struct node *node) {
  *(struct fuse_attr_out *)answer = (struct fuse_attr_out){KEEP, 0, 0, node->attr};
  return sizeof(struct fuse_attr_out);
}

static int lookup(struct node *dir) {
  struct entry *found = find(dir, body);
  if (found) return entry_of(found->node);
  *(struct fuse_entry_out *)answer = (struct fuse_entry_out){.entry_valid = KEEP};
  return sizeof(struct fuse_entry_out);
}

static int get_statx(struct node *node) {
  const struct fuse_attr *a = &node->attr;
  *(struct statx_out *)answer = (struct statx_out){
      .valid = KEEP, .mask = STATX_KNOWN, .blksize = a->blksize, .nlink = a->nlink, .uid = a->uid, .gid = a->gid,
      .mode = a->mode, .ino = a->ino, .size = a->size, .blocks = a->blocks, .atime = {a->atime, a->atimensec, 0},
      .ctime = {a->ctime, a->ctimensec, 0}, .mtime = {a->mtime, a->mtimensec, 0},
      .rdev_major = (a->rdev >> 8) & 0xfff, .rdev_minor = (a->rdev & 0xff) | ((a->rdev >> 12) & 0xfff00)};
  return sizeof(struct statx_out);
}

static void drop_setid(struct fuse_attr *a) {
  a->mode &= ~S_ISUID;
  if (a->mode & S_IXGRP) a->mode &= ~S_ISGID;
}

static int setattr(struct node *node) {
  const struct fuse_setattr_in *s = (void *)body;
  struct fuse_attr *a = &node->attr;
  struct timespec t = now();
  learn(node);
  if (s->valid & (FATTR_KILL_SUIDGID | FATTR_UID | FATTR_GID) && S_ISREG(a->mode)) drop_setid(a);
  if (s->valid & FATTR_MODE) a->mode = (a->mode & S_IFMT) | (s->mode & 07777);
  if (s->valid & FATTR_UID) a->uid = s->uid;
  if (s->valid & FATTR_GID) a->gid = s->gid;
  if (s->valid & FATTR_SIZE) resize(node, s->size), node->stored = 0, set_mtime(a, t);
  if (s->valid & FATTR_MTIME) a->mtime = s->mtime, a->mtimensec = s->mtimensec;
  if (s->valid & FATTR_MTIME_NOW) set_mtime(a, t);
  if (s->valid & FATTR_ATIME) a->atime = s->atime, a->atimensec = s->atimensec;
  if (s->valid & FATTR_ATIME_NOW) a->atime = t.tv_sec, a->atimensec = t.tv_nsec;
  a->ctime = t.tv_sec, a->ctimensec = t.tv_nsec;
  return attributes_of(node);
}

/* ---- making, removing, renaming ---- */

static int make(struct node *dir, const char *name, uint32_t mode, uint32_t rdev, struct node **made) {
  if (find(dir, name)) return -EEXIST;
  int inherits = (dir->attr.mode & S_ISGID) != 0;
  struct node *node = new_node(mode | (inherits && S_ISDIR(mode) ? S_ISGID : 0), header->uid, inherits ? dir->attr.gid : header->gid);
  node->attr.rdev = rdev;
  add_name(dir, name, node);
  touch(&dir->attr, 1);
  *made = node;
  return 0;
}

static int make_entry(struct node *dir, const char *name, uint32_t mode, uint32_t rdev) {
  struct node *node;
  int error = make(dir, name, mode, rdev, &node);
  return error ? error : entry_of(node);
}

static int symlink_to(struct node *dir) {
  struct node *node;
  const char *target = body + strlen(body) + 1;
  int error = make(dir, body, S_IFLNK | 0777, 0, &node);
  if (error) return error;
  node->bytes = must(strdup(target));
  set_size(node, strlen(target));
  return entry_of(node);
}

static int link_to(struct node *dir) {
  struct node *node = node_of(((struct fuse_link_in *)body)->oldnodeid);
  const char *name = body + sizeof(struct fuse_link_in);
  if (find(dir, name)) return -EEXIST;
  add_name(dir, name, node);
  touch(&dir->attr, 1);
  touch(&node->attr, 0);
  return entry_of(node);
}

static void unname(struct entry *entry) {
  struct node *node = entry->node;
  touch(&entry->dir->attr, 1);
  remove_name(entry);
  touch(&node->attr, 0);
  forget_node(node);
}

static int remove_from(struct node *dir, int directory) {
  struct entry *entry = find(dir, body);
  if (!entry) return -ENOENT;
  if (directory && entry->node->names > 0) return -ENOTEMPTY;
  unname(entry);
  return 0;
}

static int rename_from(struct node *dir, uint64_t newdir, const char *from, uint32_t flags) {
  struct node *to = node_of(newdir);
  const char *name = from + strlen(from) + 1;
  struct entry *entry = find(dir, from), *other = find(to, name);
  if (!entry) return -ENOENT;
  if (flags & ~RENAME_NOREPLACE) return -EINVAL;
  if (other && flags & RENAME_NOREPLACE) return -EEXIST;
  struct node *node = entry->node;
  if (other && other->node == node) return 0;
  if (other && other->node->names > 0) return -ENOTEMPTY;
  if (other) unname(other);
  remove_name(entry);
  add_name(to, name, node);
  touch(&dir->attr, 1);
  touch(&to->attr, 1);
  touch(&node->attr, 0);
  return 0;
}

static void forget(uint64_t id, uint64_t count) {
  struct node *node = node_of(id);
  if (node == root) return;
  node->lookups -= count;
  forget_node(node);
}

static void forget_many(void) {
  const struct fuse_batch_forget_in *many = (void *)body;
  const struct fuse_forget_one *one = (void *)(many + 1);
  for (uint32_t i = 0; i < many->count; i++) forget(one[i].nodeid, one[i].nlookup);
}

/* ---- open files ---- */

/* The bytes of a small file go into the kernel's cache before anybody asks, once: nobody has it open, so nobody who
 * waits for us holds a page of it. */
static void store(struct node *node) {
  struct fuse_notify_store_out *told = answer;
  *told = (struct fuse_notify_store_out){(uintptr_t)node, 0, node->attr.size, 0};
  memcpy(told + 1, node->bytes, node->attr.size);
  uint32_t length = sizeof(struct fuse_out_header) + sizeof *told + node->attr.size;
  *(struct fuse_out_header *)out = (struct fuse_out_header){length, FUSE_NOTIFY_STORE, 0};
  node->stored = write(device, out, length) == length;
}

static void open_as(struct node *node, uint32_t flags, struct fuse_open_out *opened) {
  int writes = (flags & O_ACCMODE) != O_RDONLY;
  int first = node->opens == 0;
  if (flags & O_TRUNC) resize(node, 0), touch(&node->attr, 1), node->stored = 0;
  if (first && node->fd < 0 && has_passthrough && (writes || node->attr.size > SMALL)) to_memfd(node);
  if (first && node->fd < 0 && !writes && !node->stored && node->attr.size > 0 && node->attr.size <= SMALL) store(node);
  node->opens++;
  if ((flags & O_ACCMODE) != O_WRONLY) node->lent |= node->fd >= 0;
  *opened = (struct fuse_open_out){.open_flags = writes ? 0 : FOPEN_NOFLUSH};
  if (node->fd < 0 && node->stored) opened->open_flags |= FOPEN_KEEP_CACHE;
  if (node->fd < 0) return;
  opened->open_flags |= OPEN_PASSTHROUGH;
  opened->padding = node->backing; /* backing_id */
}

static int open_file(struct node *node) {
  const struct fuse_open_in *wish = (void *)body;
  if (wish->open_flags & FUSE_OPEN_KILL_SUIDGID) drop_setid(&node->attr);
  open_as(node, wish->flags, answer);
  return sizeof(struct fuse_open_out);
}

static int create(struct node *dir) {
  const struct fuse_create_in *wish = (void *)body;
  struct node *node;
  int error = make(dir, body + sizeof *wish, S_IFREG | (wish->mode & 07777 & ~wish->umask), 0, &node);
  if (error) return error;
  int length = entry_of(node);
  open_as(node, wish->flags, (void *)((char *)answer + length));
  return length + sizeof(struct fuse_open_out);
}

static int release(struct node *node) {
  if (--node->opens == 0 && S_ISREG(node->attr.mode)) {
    if (node->fd >= 0) to_bytes(node);
    forget_node(node);
  }
  return 0;
}

static int read_file(struct node *node) {
  const struct fuse_read_in *wish = (void *)body;
  return get(node, answer, wish->offset, wish->size < MOST ? wish->size : MOST);
}

static int write_file(struct node *node) {
  const struct fuse_write_in *wish = (void *)body;
  if (wish->write_flags & FUSE_WRITE_KILL_SUIDGID) drop_setid(&node->attr);
  int64_t done = put(node, (char *)(wish + 1), wish->offset, wish->size);
  if (done < 0) return -EIO;
  *(struct fuse_write_out *)answer = (struct fuse_write_out){.size = done};
  return sizeof(struct fuse_write_out);
}

/* Holes are not known of. */
static int seek(struct node *node) {
  const struct fuse_lseek_in *wish = (void *)body;
  learn(node);
  if (wish->offset >= node->attr.size) return -ENXIO;
  *(struct fuse_lseek_out *)answer = (struct fuse_lseek_out){wish->whence == SEEK_HOLE ? node->attr.size : wish->offset};
  return sizeof(struct fuse_lseek_out);
}

static int copy_range(struct node *from) {
  const struct fuse_copy_file_range_in *wish = (void *)body;
  int64_t got = get(from, copied, wish->off_in, wish->len < MOST ? wish->len : MOST);
  int64_t done = got > 0 ? put(node_of(wish->nodeid_out), copied, wish->off_out, got) : got;
  if (done < 0) return -EIO;
  *(struct fuse_write_out *)answer = (struct fuse_write_out){.size = done};
  return sizeof(struct fuse_write_out);
}

/* ---- listings ---- */

static uint32_t list_one(char *at, int plus, struct node *node, uint64_t ino, uint64_t offset, const char *name, uint32_t length) {
  uint32_t before = plus ? sizeof(struct fuse_entry_out) : 0;
  struct fuse_dirent *record = (void *)(at + before);
  uint32_t size = before + FUSE_NAME_OFFSET + length;
  /* No node goes with "." and "..". */
  if (plus && node) fill_entry((void *)at, node);
  else if (plus) memset(at, 0, before);
  *record = (struct fuse_dirent){ino, offset, length, node ? node->attr.mode >> 12 : DT_DIR};
  memcpy(record->name, name, length);
  memset(at + size, 0, FUSE_REC_ALIGN(size) - size);
  return FUSE_REC_ALIGN(size);
}

static int list(struct node *dir, int plus) {
  const struct fuse_read_in *wish = (void *)body;
  uint32_t room = wish->size < MOST ? wish->size : MOST, length = 0;
  uint32_t most = (plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET) + 8;
  char *at = answer;
  struct node *above = dir->parent ? dir->parent : dir;
  if (wish->offset < 1) length += list_one(at + length, plus, NULL, dir->attr.ino, 1, ".", 1);
  if (wish->offset < 2) length += list_one(at + length, plus, NULL, above->attr.ino, 2, "..", 2);
  for (uint64_t slot = wish->offset < 2 ? 0 : wish->offset - 2; slot < dir->used; slot++) {
    const struct entry *e = dir->slots[slot];
    if (!e) continue;
    if (length + most + e->length > room) break;
    length += list_one(at + length, plus, e->node, e->node->attr.ino, slot + 3, e->name, e->length);
  }
  return length;
}

/* ---- the loop ---- */

static int initialise(void) {
  const struct fuse_init_in *offer = (void *)body;
  uint32_t flags = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_DONT_MASK | FUSE_AUTO_INVAL_DATA |
                   FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES | FUSE_POSIX_ACL | FUSE_ABORT_ERROR | FUSE_SETXATTR_EXT |
                   FUSE_INIT_EXT | FUSE_CACHE_SYMLINKS | FUSE_HANDLE_KILLPRIV_V2 | FUSE_DO_READDIRPLUS;
  uint32_t flags2 = (CREATE_SUPP_GROUP | DIRECT_IO_ALLOW_MMAP | PASSTHROUGH) & offer->flags2;
  has_passthrough = (flags2 & PASSTHROUGH) != 0;
  if (has_passthrough) flags |= FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS;
  *(struct fuse_init_out *)answer = (struct fuse_init_out){
      FUSE_KERNEL_VERSION, offer->minor < 45 ? offer->minor : 45, offer->max_readahead, flags & offer->flags, 64, 48,
      MOST, 1, MOST / 4096, 0, flags2, {has_passthrough /* max_stack_depth */}};
  return sizeof(struct fuse_init_out);
}

static int statfs_out(void) {
  struct fuse_kstatfs st = {1 << 24, 1 << 23, 1 << 23, 1 << 24, 1 << 23, 4096, 255, 4096, 0, {0}};
  *(struct fuse_statfs_out *)answer = (struct fuse_statfs_out){st};
  return sizeof(struct fuse_statfs_out);
}

static int get_lock(void) {
  const struct fuse_lk_in *wish = (void *)body;
  *(struct fuse_lk_out *)answer = (struct fuse_lk_out){wish->lk};
  ((struct fuse_lk_out *)answer)->lk.type = F_UNLCK;
  return sizeof(struct fuse_lk_out);
}

static int no_attributes(void) {
  *(struct fuse_getxattr_out *)answer = (struct fuse_getxattr_out){0};
  return ((struct fuse_getxattr_in *)body)->size == 0 ? sizeof(struct fuse_getxattr_out) : 0;
}

static int on_directory(struct node *dir) {
  switch (header->opcode) {
    case FUSE_LOOKUP: return lookup(dir);
    case FUSE_CREATE: return create(dir);
    case FUSE_SYMLINK: return symlink_to(dir);
    case FUSE_LINK: return link_to(dir);
    case FUSE_UNLINK: return remove_from(dir, 0);
    case FUSE_RMDIR: return remove_from(dir, 1);
    case FUSE_OPENDIR: return -ENOSYS;
    case FUSE_READDIR: return list(dir, 0);
    case FUSE_READDIRPLUS: return list(dir, 1);
    case FUSE_MKDIR: {
      const struct fuse_mkdir_in *wish = (void *)body;
      return make_entry(dir, (char *)(wish + 1), S_IFDIR | (wish->mode & 07777 & ~wish->umask), 0);
    }
    case FUSE_MKNOD: {
      const struct fuse_mknod_in *wish = (void *)body;
      return make_entry(dir, (char *)(wish + 1), wish->mode & ~wish->umask, wish->rdev);
    }
    case FUSE_RENAME: {
      const struct fuse_rename_in *wish = (void *)body;
      return rename_from(dir, wish->newdir, (char *)(wish + 1), 0);
    }
    case FUSE_RENAME2: {
      const struct fuse_rename2_in *wish = (void *)body;
      return rename_from(dir, wish->newdir, (char *)(wish + 1), wish->flags);
    }
    default: return -ENOSYS;
  }
}

static int readlink_of(const struct node *node) {
  memcpy(answer, node->bytes, node->attr.size);
  return node->attr.size;
}

static int on_node(struct node *node) {
  switch (header->opcode) {
    case FUSE_GETATTR: learn(node); return attributes_of(node);
    case OPCODE_STATX: learn(node); return get_statx(node);
    case FUSE_SETATTR: return setattr(node);
    case FUSE_READLINK: return readlink_of(node);
    case FUSE_OPEN: return open_file(node);
    case FUSE_READ: return read_file(node);
    case FUSE_WRITE: return write_file(node);
    case FUSE_LSEEK: return seek(node);
    case FUSE_COPY_FILE_RANGE: return copy_range(node);
    case FUSE_RELEASE: return release(node);
    case FUSE_FLUSH:
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
    case FUSE_SETLK:
    case FUSE_SETLKW: return 0;
    case FUSE_GETLK: return get_lock();
    case FUSE_GETXATTR:
    case FUSE_REMOVEXATTR: return -ENODATA;
    case FUSE_LISTXATTR: return no_attributes();
    case FUSE_SETXATTR:
    case FUSE_FALLOCATE: return -EOPNOTSUPP;
    case FUSE_IOCTL: return -ENOTTY;
    default: return on_directory(node);
  }
}

static void serve(void) {
  switch (header->opcode) {
    case FUSE_FORGET: forget(header->nodeid, ((struct fuse_forget_in *)body)->nlookup); return;
    case FUSE_BATCH_FORGET: forget_many(); return;
    case FUSE_INTERRUPT: return;
  }
  uint64_t unique = header->unique;
  int result = header->opcode == FUSE_INIT ? initialise()
               : header->opcode == FUSE_STATFS ? statfs_out()
               : header->opcode == FUSE_DESTROY ? 0
                                                : on_node(node_of(header->nodeid));
  send_out(result < 0 ? result : 0, result < 0 ? 0 : result, unique);
}

static double microseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int latency = -1, holds;

static void hold(int awake) {
  int32_t most = awake ? 0 : 2000000000;
  holds = write(latency, &most, sizeof most) == sizeof most && awake;
}

/* As Kasane's (src/fuse/awake.ts): sixteen requests in a row, each less than 1 ms after the one before. */
static void came(void) {
  static double last;
  static int near;
  double now = microseconds();
  near = now - last < 1000 ? near + 1 : 0;
  last = now;
  if (near >= 16 && latency >= 0 && !holds) hold(1);
}

/* As Kasane's: a spin that catches a request earns eight more, one in vain costs one, a short wait earns one. */
static ssize_t receive(double spin) {
  static int credit;
  ssize_t got = read(device, in, sizeof in);
  if (got >= 0 || errno != EAGAIN) return got;
  double began = microseconds();
  while (credit > 0 && microseconds() < began + spin) {
    got = read(device, in, sizeof in);
    if (got >= 0 || errno != EAGAIN) {
      credit = 8;
      return got;
    }
  }
  struct pollfd wanted = {device, POLLIN, 0};
  if (poll(&wanted, 1, holds ? 2 : -1) == 0) hold(0);
  if (credit > 0) credit--;
  else if (microseconds() - began < 100) credit = 1;
  errno = EAGAIN;
  return -1;
}

static void mount_at(const char *point, int blocking) {
  char data[200];
  device = open("/dev/fuse", O_RDWR | O_CLOEXEC | (blocking ? 0 : O_NONBLOCK));
  if (device < 0) fail("/dev/fuse");
  snprintf(data, sizeof data, "fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,max_read=%d,allow_other", device, MOST);
  if (mount("floor", point, "fuse.floor", 0, data) < 0) fail(point);
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  double spin = atof(argv[1]);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  grow_table();
  root = new_node(S_IFDIR | 0755, 0, 0);
  load(root, AT_FDCWD, argv[3]);
  mount_at(argv[4], spin <= 0);
  if (atoi(argv[2])) latency = open("/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC);
  if (daemon(0, 0) < 0) fail("daemon");
  for (;;) {
    ssize_t got = spin > 0 ? receive(spin) : read(device, in, sizeof in);
    if (got > 0) {
      if (spin > 0) came();
      serve();
    }
    else if (errno == ENODEV || errno == ECONNABORTED) return 0;
    else if (errno != EAGAIN && errno != ENOENT && errno != EINTR) fail("reading the device");
  }
}
