# A database of the command line, with a writer and a reader at once.
sqlite3 store 'pragma journal_mode = wal; create table words (word); insert into words values ("one");'
sqlite3 store 'insert into words values ("two"); select count(*) from words;'
sqlite3 store '.backup copy' && sqlite3 copy 'select group_concat(word) from words;'
# says:
# wal
# 2
# one,two
