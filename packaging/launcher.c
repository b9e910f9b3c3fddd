/* dist/relay: the bundle in one file.
 *
 * It carries everything that relay needs, the C library and its loader too, unpacks it once into a cache and then becomes
 * what it has unpacked: execve(), no child, so that the process which systemd started is the daemon. It is linked
 * statically and needs nothing of the machine but a folder to write to and execute from.
 *
 * The cache is code that will be run, so it must not be anybody else's: docs/decisions/one-file.md says what is believed.
 * All that is written becomes visible by a rename, when it is complete and on disk.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#include "contents.h" /* VERSION, DIGEST, LOADER, INTERPRETER_AT, LIBRARIES_AT, ROOM, LARGEST, and the list `contents` */

extern const unsigned char payload[], payload_end[];

enum { STALE_SECONDS = 60 };
static const char UNPACKING[] = ".unpacking-";

static char base[PATH_MAX];      /* the cache, without symbolic links */
static char name[64];            /* the folder in it that is ours */
static char interpreter[PATH_MAX + 128], libraries[PATH_MAX + 128];
static char refusals[8192];      /* why no place so far was good enough, a line each */
static unsigned long long chance; /* for names beside: process ids are the same in many containers */

static int refuse(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int refuse(const char *path, const char *format, ...)
{
    size_t used = strlen(refusals);
    char why[256];
    va_list values;
    va_start(values, format);
    vsnprintf(why, sizeof why, format, values);
    va_end(values);
    snprintf(refusals + used, sizeof refusals - used, "  %s: %s\n", path, why);
    return 0;
}

/* Nobody but root and ourselves may be able to put something there, or to exchange it. */
static int trusted(const struct stat *found, int last)
{
    if (!S_ISDIR(found->st_mode) || (found->st_uid != 0 && found->st_uid != geteuid()))
        return 0;
    /* Where the sticky bit is set, as in /tmp, others can add but not exchange: enough on the way, not at the end. */
    return !(found->st_mode & (S_IWGRP | S_IWOTH)) || (!last && (found->st_mode & S_ISVTX));
}

static int distrust(const char *part, const struct stat *found, const char *path)
{
    return refuse(part, "others may write there (owner %u, mode %04o): it is not used for %s",
                  (unsigned)found->st_uid, (unsigned)(found->st_mode & 07777), path);
}

static int trusted_way(const char *path)
{
    char part[PATH_MAX];
    struct stat found;
    size_t length = strlen(path);
    for (size_t end = 1; end <= length; end++) {
        if (end != 1 && end != length && path[end] != '/')
            continue;
        memcpy(part, path, end);
        part[end] = '\0';
        if (lstat(part, &found) != 0)
            return refuse(part, "%s", strerror(errno));
        if (!trusted(&found, end == length))
            return distrust(part, &found, path);
    }
    return 1;
}

/* mkdir -p; what is made is for its owner alone, for others to read where that is root. Nothing is made in folders of
 * others, or by way of their links: root would leave there what they cannot remove. */
static int make_folders(const char *path)
{
    char part[PATH_MAX];
    struct stat found;
    size_t length = strlen(path);
    for (size_t end = 1; end <= length; end++) {
        if (end != length && path[end] != '/')
            continue;
        memcpy(part, path, end);
        part[end] = '\0';
        int why = mkdir(part, geteuid() == 0 ? 0755 : 0700) != 0 ? errno : 0;
        if (lstat(part, &found) != 0)
            return refuse(part, "%s", strerror(why != 0 ? why : errno));
        if (S_ISLNK(found.st_mode) && found.st_uid != 0 && found.st_uid != geteuid())
            return refuse(part, "a link that somebody else has made");
        if (stat(part, &found) == 0 && S_ISDIR(found.st_mode) && !trusted(&found, 0))
            return distrust(part, &found, path);
    }
    return 1;
}

static void remove_tree(int at, const char *entry)
{
    int fd = openat(at, entry, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
    if (folder != NULL) {
        struct dirent *item;
        while ((item = readdir(folder)) != NULL) {
            if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
                continue;
            if (unlinkat(dirfd(folder), item->d_name, 0) != 0)
                remove_tree(dirfd(folder), item->d_name);
        }
        closedir(folder);
    } else if (fd >= 0) {
        close(fd);
    }
    unlinkat(at, entry, AT_REMOVEDIR);
}

/* Whether a file of ours is there as it must be: kind, owner, size. */
static int intact(int folder, const struct content *content)
{
    struct stat found;
    if (fstatat(folder, content->path, &found, AT_SYMLINK_NOFOLLOW) != 0 || (found.st_uid != 0 && found.st_uid != geteuid())
        || (found.st_mode & (S_IWGRP | S_IWOTH)))
        return 0;
    if (content->folder)
        return S_ISDIR(found.st_mode);
    return S_ISREG(found.st_mode) && (unsigned long)found.st_size == content->size
        && (found.st_mode & 0500) == (content->executable ? 0500 : 0400);
}

static int all_intact(int folder)
{
    for (const struct content *content = contents; content->path != NULL; content++)
        if (!intact(folder, content))
            return 0;
    return 1;
}

/* The payload, piece by piece. */
struct stream {
    ZSTD_DStream *decoder;
    ZSTD_inBuffer in;
};

static int take(struct stream *stream, void *to, size_t size)
{
    ZSTD_outBuffer out = {to, size, 0};
    while (out.pos < out.size) {
        size_t before = out.pos, left = ZSTD_decompressStream(stream->decoder, &out, &stream->in);
        if (ZSTD_isError(left) || (out.pos == before && stream->in.pos == stream->in.size))
            return errno = EILSEQ, 0;
    }
    return 1;
}

static int write_all(int fd, const char *from, size_t size)
{
    while (size > 0) {
        ssize_t done = write(fd, from, size);
        if (done < 0 && errno != EINTR)
            return 0;
        if (done > 0)
            from += done, size -= (size_t)done;
    }
    return 1;
}

static int write_file(int folder, const struct content *content, const char *bytes)
{
    char beside[PATH_MAX];
    snprintf(beside, sizeof beside, "%s.%016llx", content->path, chance);
    int fd = openat(folder, beside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return 0;
    int done = write_all(fd, bytes, content->size) && fchmod(fd, content->executable ? 0755 : 0644) == 0;
    if (close(fd) != 0 || !done || renameat(folder, beside, folder, content->path) != 0) {
        int why = errno;
        unlinkat(folder, beside, 0);
        return errno = why, 0;
    }
    return 1;
}

static const char *reason(int why)
{
    return why == EILSEQ ? "this executable is damaged, take a new copy of it" : strerror(why);
}

/* Write what is missing or not as it must be; then it is on disk. */
static int fill(int folder)
{
    struct stream stream = {ZSTD_createDStream(), {payload, (size_t)(payload_end - payload), 0}};
    char *bytes = malloc(LARGEST);
    int done = stream.decoder != NULL && bytes != NULL;
    for (const struct content *content = contents; done && content->path != NULL; content++) {
        if (content->folder) {
            if (!intact(folder, content)) {
                unlinkat(folder, content->path, 0);
                remove_tree(folder, content->path); /* with all in it: who could write there may have added something */
                done = mkdirat(folder, content->path, 0755) == 0 && fchmodat(folder, content->path, 0755, 0) == 0;
            }
            continue;
        }
        done = take(&stream, bytes, content->size);
        if (content->program) { /* now it is known where its loader and libraries are */
            memset(bytes + INTERPRETER_AT, 0, ROOM - 1);
            memcpy(bytes + INTERPRETER_AT, interpreter, strlen(interpreter));
            memset(bytes + LIBRARIES_AT, 0, ROOM - 1);
            memcpy(bytes + LIBRARIES_AT, libraries, strlen(libraries));
        }
        if (done && !intact(folder, content)) {
            remove_tree(folder, content->path); /* if it is a folder */
            done = write_file(folder, content, bytes);
        }
    }
    int why = errno;
    free(bytes);
    ZSTD_freeDStream(stream.decoder);
    errno = why;
    return done && syncfs(folder) == 0;
}

/* A folder of ours, locked as one that is in use; the lock goes when the last process that has it open is gone. */
static int hold(int cache, const char *entry)
{
    struct stat held, named;
    int low = openat(cache, entry, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (low < 0)
        return -1;
    int fd = fcntl(low, F_DUPFD, 3); /* stays open in what we become, and is not its standard output */
    close(low);
    if (fd < 0)
        return -1;
    if (fstat(fd, &held) != 0 || !trusted(&held, 1)) {
        close(fd);
        return errno = EPERM, -1;
    }
    if (flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        close(fd);
        return errno = ENOENT, -1; /* somebody is removing it */
    }
    if (fstatat(cache, entry, &named, AT_SYMLINK_NOFOLLOW) != 0 || named.st_ino != held.st_ino) {
        close(fd);
        return errno = ENOENT, -1; /* somebody has removed it */
    }
    return fd;
}

static int is_version(const char *entry)
{
    const char *dash = strrchr(entry, '-');
    return strncmp(entry, "relay-", 6) == 0 && dash != NULL && strlen(dash + 1) == 16 && strspn(dash + 1, "0123456789abcdef") == 16;
}

/* Other versions that nothing runs from, and what a killed unpacking has left. */
static void tidy(int cache)
{
    DIR *folder = fdopendir(openat(cache, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (folder == NULL)
        return;
    struct dirent *item;
    while ((item = readdir(folder)) != NULL) {
        int left = strncmp(item->d_name, UNPACKING, sizeof UNPACKING - 1) == 0;
        if ((!left && !is_version(item->d_name)) || strcmp(item->d_name, name) == 0)
            continue;
        int fd = openat(cache, item->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        struct stat found;
        if (fd < 0)
            continue;
        if (fstat(fd, &found) == 0 && found.st_uid == geteuid() && flock(fd, LOCK_EX | LOCK_NB) == 0
            && (!left || time(NULL) - found.st_mtime > STALE_SECONDS)) {
            char gone[64];
            snprintf(gone, sizeof gone, "%sgone-%016llx", UNPACKING, chance);
            if (left || renameat(cache, item->d_name, cache, gone) == 0)
                remove_tree(cache, left ? item->d_name : gone);
        }
        close(fd);
    }
    closedir(folder);
}

/* A new folder, complete before it has its name. Who is overtaken by another relay takes what that one has made. */
static int unpack(int cache)
{
    char beside[64];
    snprintf(beside, sizeof beside, "%s%016llx", UNPACKING, chance);
    if (mkdirat(cache, beside, 0755) != 0)
        return refuse(base, "%s", strerror(errno));
    int fd = openat(cache, beside, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int done = fd >= 0 && flock(fd, LOCK_EX) == 0 && fchmod(fd, 0755) == 0 && fill(fd);
    if (done && flock(fd, LOCK_SH) == 0 && renameat(cache, beside, cache, name) == 0) {
        fsync(cache);
        close(fd);
        tidy(cache);
        return 1;
    }
    int why = errno;
    if (fd >= 0)
        close(fd);
    remove_tree(cache, beside);
    if (done && (why == EEXIST || why == ENOTEMPTY))
        return 1;
    return refuse(base, "cannot unpack: %s", reason(why));
}

static void become(char **argv)
{
    char program[PATH_MAX + 128];
    snprintf(program, sizeof program, "%s/%s/relay", base, name);
    execv(program, argv);
    refuse(program, "%s", strerror(errno));
}

static void name_ours(void)
{
    /* The path is in the name because it is in the program, which names its loader by it. */
    unsigned long long hash = 0xcbf29ce484222325u;
    for (const char *from = DIGEST; *from != '\0'; from++)
        hash = (hash ^ (unsigned char)*from) * 0x100000001b3u;
    for (const char *from = base; *from != '\0'; from++)
        hash = (hash ^ (unsigned char)*from) * 0x100000001b3u;
    snprintf(name, sizeof name, "relay-%.32s-%016llx", VERSION, hash);
    snprintf(interpreter, sizeof interpreter, "%s/%s/%s", base, name, LOADER);
    snprintf(libraries, sizeof libraries, "%s/%s/_internal", base, name);
}

/* Run from this cache; comes back only if that is not possible. */
static int try_cache(const char *wanted, char **argv)
{
    struct statvfs volume;
    if (wanted[0] != '/' || strlen(wanted) > 900)
        return refuse(wanted, "not an absolute path, or too long a one");
    if (!make_folders(wanted))
        return 0;
    if (realpath(wanted, base) == NULL)
        return refuse(wanted, "%s", strerror(errno));
    if (!trusted_way(base))
        return 0;
    if (statvfs(base, &volume) == 0 && (volume.f_flag & ST_NOEXEC))
        return refuse(base, "mounted noexec");
    name_ours();
    if (strlen(interpreter) >= ROOM - 1)
        return refuse(base, "too long a path");
    int cache = open(base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (cache < 0)
        return refuse(base, "%s", strerror(errno));
    for (int tries = 0; tries < 3; tries++) {
        int held = hold(cache, name);
        if (held >= 0) {
            if (all_intact(held) || fill(held))
                become(argv);
            else
                refuse(base, "cannot renew %s: %s", name, reason(errno));
            close(held);
            break;
        }
        if (errno != ENOENT) {
            refuse(base, "%s is not ours: %s", name, strerror(errno));
            break;
        }
        if (!unpack(cache))
            break;
    }
    close(cache);
    return 0;
}

static void try_below(const char *variable, const char *below, char **argv)
{
    const char *value = getenv(variable);
    char path[PATH_MAX];
    if (value == NULL || value[0] != '/')
        return;
    size_t length = strcspn(value, ":"); /* systemd separates several folders by colons */
    if ((size_t)snprintf(path, sizeof path, "%.*s%s", (int)length, value, below) < sizeof path)
        try_cache(path, argv);
}

int main(int argc, char **argv)
{
    (void)argc;
    if (getauxval(AT_SECURE)) {
        fputs("relay: not with rights that its file gives: remove the setuid bit or the capabilities\n", stderr);
        return 1;
    }
    memcpy(&chance, (const void *)getauxval(AT_RANDOM), sizeof chance);
    const char *said = getenv("RELAY_CACHE");
    if (said != NULL && said[0] != '\0') {
        try_cache(said, argv);
    } else {
        char own[64];
        try_below("CACHE_DIRECTORY", "", argv); /* systemd's CacheDirectory= */
        if (geteuid() == 0)
            try_cache("/var/cache/relay", argv);
        try_below("XDG_CACHE_HOME", "/relay", argv);
        try_below("HOME", "/.cache/relay", argv);
        try_below("RUNTIME_DIRECTORY", "", argv);
        snprintf(own, sizeof own, "/tmp/relay-%u", (unsigned)geteuid());
        try_cache(own, argv);
    }
    fprintf(stderr, "relay: there is no place to unpack itself; name one with RELAY_CACHE=/path. Tried:\n%s", refusals);
    return 1;
}
