# A day of git: commits, branches, clones, worktrees, stashes, submodules.
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git init -q -b main one && cd one
echo first > file && git add file && git commit -qm first
git switch -qc branch && echo second >> file && git commit -qam second
git switch -q main && git merge -q branch
git worktree add -q ../linked branch && cat ../linked/file
echo third >> file && git stash -q && cat file | wc -l && git stash pop -q && wc -l < file
git commit -qam third && git log --oneline | wc -l
cd .. && git clone -q "file://$PWD/one" two
cd two && git log -1 --format=%s
git -c protocol.file.allow=always submodule add -q "file://$(dirname "$PWD")/one" part 2>/dev/null
git commit -qm part && cat .gitmodules | grep -c path
git -c protocol.file.allow=always submodule update -q --init && ls part
git checkout -qb next && echo more > more && git add more && git commit -qm more && git push -q origin next && git gc -q
git rebase -q main
git status --short | wc -l
# says:
# first
# second
# 2
# 3
# 3
# third
# 1
# file
# 0
