// Makes writes below one folder fail, as on a full or broken disk: LD_PRELOAD of a process and of all
// that it starts.
//
//     FAULT_UNDER   the folder, an absolute path
//     FAULT_NAME    a pattern (fnmatch) of the path in it, of the files that fail
//     FAULT_OF      what fails of them: w(rite), s(ync), c(reate), r(ename), in one word
//     FAULT_ERRNO   the error
//     FAULT_ALL     if set, all below the folder fails once one such file has failed: a full disk
//     FAULT_SPENT   a file that is created by the first failure
//     FAULT_LOG     instead: a file to which each call is appended, a letter and a path

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

// Whether a call fails; errno is set then.
static int fails(char what, const char *path) {
  const char *under = getenv("FAULT_UNDER");
  if (!under || !path) return 0;
  char whole[PATH_MAX * 2];
  if (path[0] == '/') snprintf(whole, sizeof whole, "%s", path);
  else {
    char here[PATH_MAX];
    if (!getcwd(here, sizeof here)) return 0;
    snprintf(whole, sizeof whole, "%s/%s", here, path);
  }
  size_t length = strlen(under);
  if (strncmp(whole, under, length) || whole[length] != '/') return 0;
  const char *inside = whole + length + 1;
  const char *log = getenv("FAULT_LOG");
  if (log) {
    char line[PATH_MAX * 2 + 8];
    int size = snprintf(line, sizeof line, "%c %s\n", what, inside);
    int file = REAL(open)(log, O_WRONLY | O_APPEND | O_CREAT, 0666);
    if (file >= 0) {
      if (REAL(write)(file, line, size) < 0) {}
      close(file);
    }
    return 0;
  }
  const char *spent = getenv("FAULT_SPENT");
  int full = getenv("FAULT_ALL") && spent && access(spent, F_OK) == 0;
  if (!full) {
    const char *name = getenv("FAULT_NAME"), *of = getenv("FAULT_OF");
    if (!name || !of || !strchr(of, what) || fnmatch(name, inside, 0)) return 0;
  } else if (what == 's' || what == 'r') return 0;
  if (spent) {
    int file = REAL(open)(spent, O_WRONLY | O_CREAT, 0666);
    if (file >= 0) close(file);
  }
  const char *number = getenv("FAULT_ERRNO");
  errno = number ? atoi(number) : ENOSPC;
  return 1;
}

static int fails_of(char what, int file) {
  if (!getenv("FAULT_UNDER")) return 0;
  char name[64], path[PATH_MAX];
  snprintf(name, sizeof name, "/proc/self/fd/%d", file);
  ssize_t size = readlink(name, path, sizeof path - 1);
  if (size <= 0) return 0;
  path[size] = 0;
  return fails(what, path);
}

ssize_t write(int file, const void *data, size_t size) {
  return fails_of('w', file) ? -1 : REAL(write)(file, data, size);
}
ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
  return fails_of('w', file) ? -1 : REAL(pwrite)(file, data, size, at);
}
ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
  return fails_of('w', file) ? -1 : REAL(pwrite64)(file, data, size, at);
}
ssize_t writev(int file, const struct iovec *parts, int count) {
  return fails_of('w', file) ? -1 : REAL(writev)(file, parts, count);
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) {
  return fails_of('w', to) ? -1 : ((ssize_t(*)(int, int, off64_t *, size_t))dlsym(RTLD_NEXT, "sendfile64"))(to, from, at, size);
}
ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t size, unsigned flags) {
  return fails_of('w', to) ? -1 : REAL(copy_file_range)(from, a, to, b, size, flags);
}
size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
  return fails_of('w', fileno(file)) ? 0 : REAL(fwrite)(data, size, count, file);
}
int fsync(int file) { return fails_of('s', file) ? -1 : REAL(fsync)(file); }
int fdatasync(int file) { return fails_of('s', file) ? -1 : REAL(fdatasync)(file); }

#define MODE(flags, mode)                                 \
  mode_t mode = 0;                                        \
  if (flags & (O_CREAT | O_TMPFILE)) {                    \
    va_list rest;                                         \
    va_start(rest, flags);                                \
    mode = va_arg(rest, mode_t);                          \
    va_end(rest);                                         \
  }

int open(const char *path, int flags, ...) {
  MODE(flags, mode)
  if (flags & O_CREAT && access(path, F_OK) && fails('c', path)) return -1;
  return REAL(open)(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
  MODE(flags, mode)
  if (flags & O_CREAT && access(path, F_OK) && fails('c', path)) return -1;
  return REAL(open64)(path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
  MODE(flags, mode)
  if (flags & O_CREAT && folder == AT_FDCWD && access(path, F_OK) && fails('c', path)) return -1;
  return REAL(openat)(folder, path, flags, mode);
}
int mkdir(const char *path, mode_t mode) {
  return access(path, F_OK) && fails('c', path) ? -1 : REAL(mkdir)(path, mode);
}
int symlink(const char *to, const char *path) {
  return fails('c', path) ? -1 : REAL(symlink)(to, path);
}
int rename(const char *from, const char *to) {
  return fails('r', to) ? -1 : REAL(rename)(from, to);
}
